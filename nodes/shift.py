"""ShiftNoise: move the picture by moving its noise maps (paper section 4 and figure 5)."""

from __future__ import annotations

from comfy_api.latest import io

from ..ddpm_core import edits, shift
from .host.guided import NOISE_MAPS_TOOLTIP, NodeError, NoiseMapsType, check_maps, seed_input


class ShiftNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        cells = "in latent cells (8 picture pixels each for Stable Diffusion)"
        return io.Schema(
            node_id="ShiftNoise",
            display_name="Shift Noise",
            category="edit-friendly noise maps",
            description="Move the picture inside its frame: the model draws what comes in at the border.",
            inputs=[
                NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP),
                io.Int.Input(
                    "x", default=0, min=-4096, max=4096, tooltip=f"How far to the right {cells}; negative is left."
                ),
                io.Int.Input("y", default=0, min=-4096, max=4096, tooltip=f"How far down {cells}; negative is up."),
                io.Combo.Input(
                    "fill",
                    options=list(edits.FILLS),
                    default="noise",
                    tooltip="What comes into the vacated cells: fresh noise, from which the model draws, or what left at the other side.",
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
        height, width = noise_maps.latents.shape[-2:]
        for socket, value, size in (("x", x, width), ("y", y, height)):
            if abs(value) >= size:
                raise NodeError(
                    "ShiftNoise",
                    socket,
                    f"the picture is {size} latent cells long here, so it must lie between {1 - size} and {size - 1}; got {value}.",
                )
        return io.NodeOutput(shift(noise_maps, x, y, fill=fill, seed=seed))


NODES = [ShiftNoise]
