"""ScaleNoiseMaps: less of the picture's structure in the maps (those of arXiv 2304.06140, An Edit
Friendly DDPM Noise Space), more freedom for the model."""

from __future__ import annotations

from comfy_api.latest import io

from ..ddpm_core import scale as scale_maps
from .host.wires import (
    ALL_STEPS,
    NOISE_MAPS_TOOLTIP,
    NoiseMapsType,
    Socket,
    check_maps,
    known,
    naming,
    seed_input,
    window_inputs,
    window_sockets,
)


class ScaleNoiseMaps(io.ComfyNode):
    """Maps of arXiv 2304.06140 (An Edit Friendly DDPM Noise Space) scaled; beyond the paper."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ScaleNoiseMaps",
            display_name="Scale Noise Maps",
            category="edit-friendly noise maps",
            description="Keep only a share of the picture's structure, in all steps or some: the model gets more "
            "freedom than cfg and skip alone give it. Fresh noise fills up what is taken away.",
            **known(io.Schema, search_aliases=["edit strength", "denoise strength", "weaken structure"]),
            inputs=[
                NoiseMapsType.Input(
                    "noise_maps", tooltip=f"{NOISE_MAPS_TOOLTIP} Push a colour after this, or the push is scaled too."
                ),
                io.Float.Input(
                    "scale",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The share that is kept: 1 leaves the maps as they are, 0 keeps none: plain sampling from "
                    "where the edit starts. 0.7 to 0.95 is useful. Beyond the paper.",
                ),
                *window_inputs("scaled", 100.0, 0.0),
                seed_input("Seed of the fresh noise. Changes of maps in a chain need different ones."),
            ],
            outputs=[
                NoiseMapsType.Output(
                    id="scaled",
                    display_name="scaled_maps",
                    tooltip="The scaled maps, for Noise Map Edit or another edit of maps.",
                )
            ],
        )

    @classmethod
    def execute(cls, noise_maps, scale, start, end, seed, **kwargs) -> io.NodeOutput:
        check_maps("ScaleNoiseMaps", noise_maps)
        with naming("ScaleNoiseMaps", "noise_maps", share=Socket("scale"), **window_sockets(ALL_STEPS)):
            return io.NodeOutput(scale_maps(noise_maps, scale, start=start, end=end, seed=seed))


NODES = [ScaleNoiseMaps]
