"""FlipNoiseMaps: mirror the picture by mirroring its noise maps (those of arXiv 2304.06140, An Edit
Friendly DDPM Noise Space)."""

from __future__ import annotations

from comfy_api.latest import io

from ..ddpm_core import flip
from ..ddpm_core.edits.flip import FLIPS
from .host.wires import NOISE_MAPS_TOOLTIP, NoiseMapsType, Socket, check_maps, known, naming


class FlipNoiseMaps(io.ComfyNode):
    """Maps of arXiv 2304.06140 (An Edit Friendly DDPM Noise Space) mirrored; beyond the paper."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FlipNoiseMaps",
            display_name="Flip Noise Maps",
            category="edit-friendly noise maps",
            description="Mirror the picture before it is edited, with no new inversion.",
            **known(io.Schema, search_aliases=["mirror", "flip latent", "flip image"]),
            inputs=[
                NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP),
                io.Combo.Input(
                    "direction",
                    options=list(FLIPS),
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
        with naming("FlipNoiseMaps", "noise_maps", direction=Socket("direction")):
            return io.NodeOutput(flip(noise_maps, direction))


NODES = [FlipNoiseMaps]
