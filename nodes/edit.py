"""NoiseMapEdit: sampling along noise maps under another prompt (paper section 4, text-guided editing)."""

from __future__ import annotations

from collections.abc import Callable

from comfy_api.latest import io
from torch import Tensor

from ..ddpm_core import NoiseMaps, replay
from .sampling import NOISE_MAPS_TOOLTIP, NodeError, NoiseMapsType, check_fits, make_guider, maps_latent, naming, run


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
                io.Conditioning.Input("positive", tooltip="A prompt that says what the picture shall show."),
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
                io.Int.Input(
                    "skip",
                    default=36,
                    min=0,
                    max=999,
                    tooltip="Steps left out at the noisy end, counted on the whole schedule: more keeps more of the picture. Paper: 36 of 100, "
                    "useful 0 to 40. Not less than the skip of the inversion.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The edited picture, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, noise_maps, cfg, skip, **kwargs) -> io.NodeOutput:
        check_fits("NoiseMapEdit", noise_maps, model)
        _check_skip(noise_maps, skip)
        maps = noise_maps.skip(skip)
        with naming("NoiseMapEdit", "model"):
            samples = sample_along(maps, make_guider(model, positive, negative, cfg))
        return io.NodeOutput({"samples": samples} if maps.mask is None else {"samples": samples, "noise_mask": maps.mask})


def sample_along(maps: NoiseMaps, guider, callback: Callable | None = None) -> Tensor:
    """The edit (B, C, *S), as on LATENT wires: sampling along all of the maps under the guider's prompts. ``callback`` as for ``run``."""

    def body(denoise, inner_model, x0, report):
        return replay(denoise, maps, device=x0.device, callback=report)

    return run(guider, maps_latent(maps, guider.model_patcher), maps.sigmas, body, maps.seed, maps.mask, callback)


def _check_skip(maps, skip: int) -> None:
    if skip < maps.skipped:
        raise NodeError(
            "NoiseMapEdit",
            "skip",
            f"the picture was inverted from step {maps.skipped} on, so skip must be {maps.skipped} or more; got {skip}.",
            f"Raise it to {maps.skipped}, or lower skip on EditFriendlyInvert to {skip}.",
        )
    if skip >= maps.total_steps:
        raise NodeError("NoiseMapEdit", "skip", f"it must be less than the {maps.total_steps} steps of the maps; got {skip}.", "Lower it.")


NODES = [NoiseMapEdit]
