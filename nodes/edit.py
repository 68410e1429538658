"""NoiseMapEdit, and NoiseMapSampler for stock samplers: sampling along noise maps under another
prompt (paper section 4, text-guided editing)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from comfy_api.latest import io
from torch import Tensor

from ..ddpm_core import NoiseMaps, replay
from .host.guided import (
    NOISE_MAPS_TOOLTIP,
    GuidedRun,
    NodeError,
    NoiseMapsType,
    Running,
    both_masks,
    check_fits,
    check_maps,
    make_guider,
    maps_latent,
    naming,
    noise_mask,
    run,
)

NODE = "NoiseMapEdit"


def skip_input() -> io.Int.Input:
    return io.Int.Input(
        "skip",
        default=-1,
        min=-1,
        max=999,
        tooltip="Steps left out at the noisy end, counted on the whole schedule: more keeps more of the picture. -1: as inverted; it cannot be less than "
        "in the inversion. Paper: 36 of 100, useful 0 to 40 per cent.",
    )


class NoiseMapEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NoiseMapEdit",
            display_name="Noise Map Edit",
            category="edit-friendly noise maps",
            description="Sample along noise maps. Another prompt edits the picture; the source prompt at the source guidance gives it back exactly.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the picture was inverted with."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="A prompt that says what the picture shall show: the source prompt with as few words changed as possible.",
                ),
                io.Conditioning.Input("negative", tooltip="The negative prompt; usually the one of the inversion."),
                NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP),
                io.Float.Input(
                    "cfg",
                    default=15.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance towards the target prompt: more changes more. Paper: 15, useful 7 to 18. The demo model likes 3.",
                ),
                skip_input(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the edit may change the picture; a noise mask that was inverted holds as well.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The edited picture, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, noise_maps, cfg, skip, mask=None, **kwargs) -> io.NodeOutput:
        check_fits(NODE, noise_maps, model)
        maps = skipped(NODE, noise_maps, skip)
        if mask is not None:
            with naming(NODE, "mask", "Look at what makes the mask."):
                maps = dataclasses.replace(maps, mask=both_masks(maps.mask, noise_mask(mask, maps.latents.shape[1:])))
        with naming(NODE, "model"):
            samples = sample_along(maps, make_guider(model, positive, negative, cfg))
        return io.NodeOutput(
            {"samples": samples} if maps.mask is None else {"samples": samples, "noise_mask": maps.mask}
        )


class NoiseMapSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NoiseMapSampler",
            display_name="Noise Map Sampler",
            category="edit-friendly noise maps",
            description="The same edit as Noise Map Edit through the stock SamplerCustomAdvanced, with any guider: connect all three outputs. As latent_image "
            "take the latent that was inverted, or an empty one of its size; a noise mask in it says where the picture may change.",
            inputs=[NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP), skip_input()],
            outputs=[
                io.Noise.Output(
                    id="noise",
                    display_name="NOISE",
                    tooltip="The noise of the path where the edit starts, and the seed of the maps.",
                ),
                io.Sampler.Output(
                    id="sampler",
                    display_name="SAMPLER",
                    tooltip="The sampler that walks along the maps; its start lies in the maps.",
                ),
                io.Sigmas.Output(
                    id="sigmas",
                    display_name="SIGMAS",
                    tooltip="The noise levels of the maps from skip on. The sampler takes no others.",
                ),
            ],
        )

    @classmethod
    def execute(cls, noise_maps, skip, **kwargs) -> io.NodeOutput:
        check_maps("NoiseMapSampler", noise_maps)
        maps = skipped("NoiseMapSampler", noise_maps, skip)
        return io.NodeOutput(StartNoise(maps), GuidedRun(partial(_walk_for_sockets, maps)), maps.sigmas.float())


class StartNoise:
    """What a NOISE wire carries: the noise of the path at its first level, (x_T - alpha x_0) /
    sigma."""

    def __init__(self, maps: NoiseMaps):
        self.maps, self.seed = maps, maps.seed

    def generate_noise(self, latent: dict) -> Tensor:
        shape, held = latent["samples"].shape, self.maps.latents.shape[1:]
        if shape[0] != held[0] or shape[2:] != held[2:]:
            raise NodeError(
                "SamplerCustomAdvanced",
                "latent_image",
                f"it has the shape {tuple(shape)} and the noise maps have {tuple(held)}.",
                "Connect the latent that was inverted, or an empty one of its size and batch.",
            )
        step = self.maps.steps[0]
        return (self.maps.latents[0] - step.alpha * self.maps.latents[-1]) / step.sigma


def _walk(maps: NoiseMaps, now: Running) -> Tensor:
    return replay(
        now.denoise, maps, mask=both_masks(maps.mask, now.mask), device=now.latent.device, callback=now.report
    )


def _walk_for_sockets(maps: NoiseMaps, now: Running) -> Tensor:
    """The same for SamplerCustomAdvanced, to which other things may be connected."""
    check_fits("NoiseMapSampler", maps, now.guider.model_patcher)
    expected = maps.sigmas.to(now.sigmas)
    if expected.shape != now.sigmas.shape or not torch.allclose(expected, now.sigmas, rtol=1e-3, atol=1e-4):
        raise NodeError(
            "SamplerCustomAdvanced",
            "sigmas",
            f"the sampler got {_levels(now.sigmas)}, and its noise maps have {_levels(expected)}.",
            "Connect the SIGMAS output of NoiseMapSampler; to start later, raise its skip.",
        )
    with naming("SamplerCustomAdvanced", "guider"):
        return _walk(maps, now)


def _levels(sigmas: Tensor) -> str:
    return (
        f"{len(sigmas)} noise levels from {sigmas[0].item():.4g} to {sigmas[-1].item():.4g}"
        if len(sigmas)
        else "no noise levels"
    )


def sample_along(maps: NoiseMaps, guider, callback: Callable | None = None) -> Tensor:
    """The edit (B, C, *S), as on LATENT wires: sampling along all of the maps under the guider's
    prompts. ``callback`` as for ``run``."""
    return run(
        guider,
        maps_latent(maps, guider.model_patcher),
        maps.sigmas,
        GuidedRun(partial(_walk, maps)),
        maps.seed,
        maps.mask,
        callback,
    )


def skipped(node: str, maps: NoiseMaps, skip: int) -> NoiseMaps:
    """The maps from a node's ``skip`` on; -1 is where they start."""
    if skip < 0:
        return maps
    if skip < maps.skipped:
        raise NodeError(
            node,
            "skip",
            f"the picture was inverted from step {maps.skipped} on, so skip must be {maps.skipped} or more, or -1 for the same; got {skip}.",
            f"Raise it to {maps.skipped}, or lower skip of the inversion to {skip}.",
        )
    if skip >= maps.total_steps:
        raise NodeError(
            node, "skip", f"it must be less than the {maps.total_steps} steps of the maps; got {skip}.", "Lower it."
        )
    return maps.skip(skip)


NODES = [NoiseMapEdit, NoiseMapSampler]
