"""FlipNoiseMaps: mirror the picture by mirroring its noise maps."""

from __future__ import annotations

from comfy_api.latest import io

from ..ddpm_core import edits, flip
from .host.guided import NOISE_MAPS_TOOLTIP, NoiseMapsType, check_maps


class FlipNoiseMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FlipNoiseMaps",
            display_name="Flip Noise Maps",
            category="edit-friendly noise maps",
            description="Mirror the picture before it is edited, with no new inversion.",
            inputs=[
                NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP),
                io.Combo.Input(
                    "direction",
                    options=list(edits.FLIPS),
                    default="left-right",
                    tooltip="A mirror, or top and bottom swapped.",
                ),
            ],
            outputs=[
                NoiseMapsType.Output(
                    id="flipped",
                    display_name="flipped_maps",
                    tooltip="The mirrored maps, for Noise Map Edit or another edit of maps.",
                )
            ],
        )

    @classmethod
    def execute(cls, noise_maps, direction, **kwargs) -> io.NodeOutput:
        check_maps("FlipNoiseMaps", noise_maps)
        return io.NodeOutput(flip(noise_maps, direction))


NODES = [FlipNoiseMaps]
