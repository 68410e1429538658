"""ShiftNoise: move the picture by moving its noise maps (arXiv 2304.06140, An Edit Friendly DDPM
Noise Space, section 4 and figure 5)."""

from __future__ import annotations

from comfy_api.latest import io

from ..ddpm_core import shift
from ..ddpm_core.edits.shift import FILLS
from .host.wires import NOISE_MAPS_TOOLTIP, NoiseMapsType, Socket, check_maps, known, naming, seed_input


class ShiftNoise(io.ComfyNode):
    """Noise maps moved (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 4 and figure
    5)."""

    @classmethod
    def define_schema(cls):
        cells = "in latent cells (8 picture pixels each for Stable Diffusion)"
        return io.Schema(
            node_id="ShiftNoise",
            display_name="Shift Noise",
            category="edit-friendly noise maps",
            description="Move the picture inside its frame: the model draws what comes in at the border.",
            **known(
                io.Schema,
                search_aliases=["move image", "translate", "pan", "offset", "image shifting"],
                has_intermediate_output=True,  # the pad's cells
            ),
            inputs=[
                NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP),
                io.Int.Input(
                    "x", default=0, min=-4096, max=4096, tooltip=f"How far to the right {cells}; negative is left."
                ),
                io.Int.Input("y", default=0, min=-4096, max=4096, tooltip=f"How far down {cells}; negative is up."),
                io.Combo.Input(
                    "fill",
                    options=list(FILLS),
                    default="noise",
                    tooltip="What comes into the vacated cells: fresh noise, from which the model draws, or what left "
                    "at the other side.",
                ),
                seed_input("Seed of the fresh noise. Changes of maps in a chain need different ones."),
            ],
            outputs=[
                NoiseMapsType.Output(
                    id="shifted",
                    display_name="shifted_maps",
                    tooltip="The shifted maps, for Noise Map Edit or another edit of maps.",
                )
            ],
        )

    @classmethod
    def execute(cls, noise_maps, x, y, fill, seed, **kwargs) -> io.NodeOutput:
        check_maps("ShiftNoise", noise_maps)
        with naming("ShiftNoise", "noise_maps", dx=Socket("x"), dy=Socket("y"), fill=Socket("fill")):
            shifted = shift(noise_maps, x, y, fill=fill, seed=seed)
        height, width = shifted.latents.shape[-2:]
        return io.NodeOutput(shifted, ui={"cells": [width, height]})


NODES = [ShiftNoise]
