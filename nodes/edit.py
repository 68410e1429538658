"""NoiseMapEdit, and NoiseMapSampler for stock samplers: sampling along noise maps under another
prompt (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 4, text-guided editing)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from comfy_api.latest import io
from torch import Tensor

from ..ddpm_core import NoiseMaps, replay
from ..ddpm_core.edits.faithful import faithful
from ..ddpm_core.plan import DEMO, PAPER
from .host.attention import SOURCE, Attending, AttentionControl, AttentionControlType, check_control
from .host.guidance import Edit
from .host.guided import GuidedRun, Running, make_guider, sample
from .host.masks import MASK_REMEDY, both_masks, mask_problem, noise_mask
from .host.wires import (
    NOISE_MAPS_TOOLTIP,
    NOT_FINITE,
    NodeError,
    NoiseMapsType,
    Socket,
    check_fits,
    check_maps,
    known,
    maps_latent,
    naming,
    say,
)
from .several import SOCKETS, EditTermsType, guider_along

SKIP = Socket("skip", "-1 is the skip of the inversion; to skip less, invert again with a lower one.")
ALIASES = ["text-guided editing", "prompt editing", "real image editing", "change prompt", "img2img", "resample"]
ALIASES += ["unsampler", "FlowEdit", "FlowAlign", "h-Edit", "LEDITS", "LEDITS++"]


class NoiseMapEdit(io.ComfyNode):
    """Sampling along noise maps (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 4:
    text-guided editing). With a source prompt the guidance is h-Edit's (arXiv 2503.02187, h-Edit:
    Effective and Flexible Diffusion-Based Editing via Doob's h-Transform), with the pull
    FlowAlign's (arXiv 2505.23145, FlowAlign), and several edits are LEDITS++'s (arXiv
    2311.16711)."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NoiseMapEdit",
            display_name="Noise Map Edit",
            category="edit-friendly noise maps",
            description="Sample along noise maps. Another prompt edits the picture; the source prompt at the source "
            "guidance gives it back exactly.",
            **known(io.Schema, search_aliases=ALIASES),
            inputs=[
                io.Model.Input("model", tooltip="The model that the picture was inverted with."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="A prompt that says what the picture shall show: the source prompt with as few words "
                    "changed as possible.",
                ),
                io.Conditioning.Input("negative", tooltip="The negative prompt; usually the one of the inversion."),
                NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP),
                io.Float.Input(
                    "cfg",
                    default=PAPER.guidance_target,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance towards the target prompt: more changes more. "
                    f"Paper: {PAPER.guidance_target:g}, useful 7 to 18. The demo model likes {DEMO.guidance_target:g}.",
                ),
                _skip_input(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the edit may change the picture; a noise mask that was inverted holds as well.",
                ),
                io.Conditioning.Input(
                    "source",
                    optional=True,
                    tooltip="The prompt of the inversion. Connected, cfg leads from it to the target instead of away "
                    "from the negative prompt: what both prompts say alike is kept. Useful cfg 2 to 7.5; needs noise "
                    "maps that know the cfg of their inversion.",
                ),
                io.Float.Input(
                    "faithfulness",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    optional=True,
                    tooltip="Pulls every step towards what the model saw in the source: 0 is none, 0.01 as in "
                    "FlowAlign; more keeps more of the picture.",
                    **known(io.Float.Input, advanced=True),
                ),
                EditTermsType.Input(
                    "edits",
                    optional=True,
                    tooltip="Several edits at once, from Add Edit. positive is then the prompt of the inversion, and "
                    "cfg unused; with source connected, positive at cfg is one more edit.",
                ),
                AttentionControlType.Input(
                    "attention",
                    optional=True,
                    tooltip="What of the source's attention the edit takes over, from Prompt-to-Prompt or Mutual "
                    "Self-Attention. One more sample a step while it acts.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The edited picture, for VAE Decode.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        noise_maps,
        cfg,
        skip,
        mask=None,
        source=None,
        faithfulness=0.0,
        edits=None,
        attention=None,
        **kwargs,
    ) -> io.NodeOutput:
        check_fits("NoiseMapEdit", noise_maps, model)
        sockets = {**SOCKETS, "skip": SKIP, "mask": Socket("mask", MASK_REMEDY), "strength": Socket("faithfulness")}
        check_control("NoiseMapEdit", attention)
        with naming("NoiseMapEdit", "model", **sockets):
            maps = _skipped(noise_maps, skip)
            if mask is not None:
                problem = mask_problem(mask, maps.latents.shape[1:])
                if problem:
                    say("NoiseMapEdit", problem)
                mask = both_masks(maps.mask, noise_mask(mask, maps.latents.shape[1:]))
                maps = dataclasses.replace(maps, mask=mask)
            if faithfulness:
                maps = faithful(maps, faithfulness)
            guider = edit_guider("NoiseMapEdit", maps, model, positive, negative, cfg, source, edits)
            samples = sample_along(maps, guider, attention=attention)
        mask = {} if maps.mask is None else {"noise_mask": maps.mask}
        return io.NodeOutput({"samples": samples, **mask})


def edit_guider(node: str, maps: NoiseMaps, model, positive, negative, cfg: float, source=None, edits=None):
    """Away from the negative prompt, or from the source to the target, or to several edits."""
    if source is None and edits is None:
        return make_guider(model, positive, negative, cfg)
    first = [] if source is None else [Edit(positive, cfg)]
    return guider_along(node, maps, model, positive if source is None else source, negative, first, edits)


class NoiseMapSampler(io.ComfyNode):
    """Sampling along noise maps (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 4) by
    the stock sampler nodes."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NoiseMapSampler",
            display_name="Noise Map Sampler",
            category="edit-friendly noise maps",
            description="The same edit as Noise Map Edit through the stock SamplerCustomAdvanced, with any guider: "
            "connect all three outputs. As latent_image take the latent that was inverted, or an empty one of its "
            "size; a noise mask in it says where the picture may change.",
            **known(io.Schema, search_aliases=[*ALIASES, "custom sampler"]),
            inputs=[NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP), _skip_input()],
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
        with naming("NoiseMapSampler", "noise_maps", skip=SKIP):
            maps = _skipped(noise_maps, skip)
        return io.NodeOutput(StartNoise(maps), GuidedRun(partial(_walk_for_sockets, maps)), maps.sigmas.float())


def _skip_input() -> io.Int.Input:
    return io.Int.Input(
        "skip",
        default=-1,
        min=-1,
        max=999,
        tooltip="Steps left out at the noisy end, counted on the whole schedule: more keeps more of the picture. "
        "-1: as inverted; it cannot be less than in the inversion. "
        f"Paper: {PAPER.skip} of {PAPER.steps}, useful 0 to 40 per cent.",
    )


def _skipped(maps: NoiseMaps, skip: int) -> NoiseMaps:
    """The maps from a node's ``skip`` on; -1 is where they start. Raises BadArgument."""
    return maps if skip < 0 else maps.skip(skip)


def sample_along(
    maps: NoiseMaps, guider, callback: Callable | None = None, attention: AttentionControl | None = None
) -> Tensor:
    """The edit (B, C, *S), as on LATENT wires: sampling along all of the maps under the guider's
    prompts. ``callback`` as for ``sample``."""
    latent, work = maps_latent(maps, guider.model_patcher), GuidedRun(partial(_walk, maps, attention=attention))
    if attention is not None:
        guider.inner_set_conds({SOURCE: attention.source})
    return sample(guider, latent, maps.sigmas, work, maps.seed, maps.mask, callback)


def _walk(
    maps: NoiseMaps, running: Running, mask: Tensor | None = None, attention: AttentionControl | None = None
) -> Tensor:
    """``mask``: default the maps' own, which is the one that the guider has for the model. Outside of
    the regions of all its edits nothing changes either."""
    mask = both_masks(maps.mask if mask is None else mask, getattr(running.guider, "region", None))
    attending = None if attention is None else Attending("NoiseMapEdit", running, maps, attention)
    denoise, local = (running.denoise, None) if attending is None else (attending.denoise, attending.mask)
    return replay(denoise, maps, mask=mask, local=local, device=running.latent.device, callback=running.report)


def _walk_for_sockets(maps: NoiseMaps, running: Running) -> Tensor:
    """The same for SamplerCustomAdvanced, to which other things may be connected, and whose latent
    may have a mask."""
    check_fits("NoiseMapSampler", maps, running.guider.model_patcher, socket=None)
    expected, got = maps.sigmas.to(running.sigmas), running.sigmas
    if expected.shape != got.shape or not torch.allclose(expected, got, rtol=1e-3, atol=1e-4):
        problem = f"the sampler got {_levels(got)}, and its noise maps have {_levels(expected)}."
        remedy = "Connect the SIGMAS output of Noise Map Sampler; to start later, raise its skip."
        raise NodeError("SamplerCustomAdvanced", "sigmas", problem, remedy)
    with naming("SamplerCustomAdvanced", "guider", denoise=Socket("guider", NOT_FINITE)):
        return _walk(maps, running, both_masks(maps.mask, running.mask))


def _levels(sigmas: Tensor) -> str:
    if not len(sigmas):
        return "no noise levels"
    return f"{len(sigmas)} noise levels from {sigmas[0].item():.4g} to {sigmas[-1].item():.4g}"


def _extent(shape: tuple[int, ...]) -> str:
    """A latent's shape (B, C, *S) in words."""
    batch, _, *size = shape
    return f"{' x '.join(str(length) for length in reversed(size))} latent cells in a batch of {batch}"


class StartNoise:
    """What a NOISE wire carries: the noise of the path at its first level, (x_T - alpha x_0) /
    sigma."""

    def __init__(self, maps: NoiseMaps):
        self.maps, self.seed = maps, maps.seed

    def generate_noise(self, latent: dict) -> Tensor:
        shape, held = latent["samples"].shape, self.maps.latents.shape[1:]
        if shape[0] != held[0] or shape[2:] != held[2:]:
            problem = f"it has {_extent(shape)} and the noise maps have {_extent(held)}."
            remedy = "Connect the latent that was inverted, or an empty one of its size and batch."
            raise NodeError("SamplerCustomAdvanced", "latent_image", problem, remedy)
        step = self.maps.steps[0]
        return (self.maps.latents[0] - step.alpha * self.maps.latents[-1]) / step.sigma


NODES = [NoiseMapEdit, NoiseMapSampler]
