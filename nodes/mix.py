"""MixNoiseMaps: two inversions (of arXiv 2304.06140, An Edit Friendly DDPM Noise Space) blended:
everywhere, inside a mask, or in some of the steps."""

from __future__ import annotations

from comfy_api.latest import io

from ..ddpm_core import mix
from .host.masks import MASK_REMEDY, latent_mask
from .host.wires import (
    ALL_STEPS,
    NOISE_MAPS_TOOLTIP,
    NoiseMapsType,
    Socket,
    check_maps,
    known,
    naming,
    window_inputs,
    window_sockets,
)


class MixNoiseMaps(io.ComfyNode):
    """Maps of arXiv 2304.06140 (An Edit Friendly DDPM Noise Space) blended; beyond the paper."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MixNoiseMaps",
            display_name="Mix Noise Maps",
            category="edit-friendly noise maps",
            description="Blend two inversions: everywhere, inside a mask (a collage that the model draws), or in some "
            "of the steps (the layout of one, the details of the other). Both need the same size, steps, scheduler, "
            "eta and solver.",
            **known(io.Schema, search_aliases=["blend images", "interpolate", "morph", "collage", "merge latents"]),
            inputs=[
                NoiseMapsType.Input(
                    "noise_maps", tooltip=f"{NOISE_MAPS_TOOLTIP} What stays where nothing is blended in."
                ),
                NoiseMapsType.Input(
                    "other_maps",
                    tooltip="What is blended in: another picture, inverted with the same settings, best with the same "
                    "seed.",
                ),
                io.Float.Input(
                    "amount",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of other_maps: 0 is none, 1 is all. Beyond the paper.",
                ),
                *window_inputs("blended", 100.0, 0.0),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where other_maps come in; soft edges are kept. Without it: everywhere.",
                ),
            ],
            outputs=[
                NoiseMapsType.Output(
                    id="mixed",
                    display_name="mixed_maps",
                    tooltip="The blend, for Noise Map Edit or another edit of maps.",
                )
            ],
        )

    @classmethod
    def execute(cls, noise_maps, other_maps, amount, start, end, mask=None, **kwargs) -> io.NodeOutput:
        check_maps("MixNoiseMaps", noise_maps)
        check_maps("MixNoiseMaps", other_maps, "other_maps")
        sockets = {
            "other": Socket("other_maps", "Invert both pictures in one size with the same settings."),
            "amount": Socket("amount"),
            **window_sockets(ALL_STEPS),
            "mask": Socket("mask", MASK_REMEDY),
        }
        with naming("MixNoiseMaps", "noise_maps", **sockets):
            mask = None if mask is None else latent_mask(mask, noise_maps.latents.shape[1:])
            return io.NodeOutput(mix(noise_maps, other_maps, amount, start=start, end=end, mask=mask))


NODES = [MixNoiseMaps]
