"""NoiseMapStats: what noise maps look like as random numbers (arXiv 2304.06140, An Edit Friendly
DDPM Noise Space, section 3.1 and figure 4)."""

from __future__ import annotations

from comfy_api.latest import io

from ..ddpm_core.measure.plots import figure_picture, statistics_figure, statistics_text
from ..ddpm_core.measure.stats import statistics
from .host.wires import NOISE_MAPS_TOOLTIP, NodeError, NoiseMapsType, check_maps, known, naming


class NoiseMapStats(io.ComfyNode):
    """Variance and correlation of noise maps (arXiv 2304.06140, An Edit Friendly DDPM Noise Space,
    section 3.1 and figure 4)."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NoiseMapStats",
            display_name="Noise Map Stats",
            category="edit-friendly noise maps/measure",
            description="Plot the variance of the noise maps by step and their correlation from step to step. Native "
            "maps have 1 and 0; edit-friendly ones are well above 1 and near -0.5, and that is why edits keep the "
            "picture.",
            **known(io.Schema, search_aliases=["noise statistics", "variance", "correlation", "plot noise"]),
            inputs=[
                NoiseMapsType.Input(
                    "noise_maps",
                    tooltip=f"{NOISE_MAPS_TOOLTIP} Two steps or more of them with noise: eta above 0, so not ddim.",
                )
            ],
            outputs=[
                io.Image.Output(
                    id="plot",
                    display_name="plot",
                    tooltip="Variance (0 and more) and correlation (-1 to 1) by per cent of the schedule, 100 is "
                    "noisy; the dotted lines are white noise.",
                ),
                io.String.Output(
                    id="figures",
                    display_name="figures",
                    tooltip="The same as a table, and a sentence that says what it means.",
                ),
            ],
        )

    @classmethod
    def execute(cls, noise_maps, **kwargs) -> io.NodeOutput:
        check_maps("NoiseMapStats", noise_maps)
        remedy = "Invert with eta above 0 (not ddim), and with skip at least three below steps."
        with naming("NoiseMapStats", "noise_maps", remedy):
            measures = statistics(noise_maps)
        try:
            picture = figure_picture(statistics_figure({"these maps": measures}))
        except ImportError as error:
            problem, remedy = f"the plot needs matplotlib; {error}.", "Run: python -m pip install matplotlib"
            raise NodeError("NoiseMapStats", "noise_maps", problem, remedy) from error
        return io.NodeOutput(picture.movedim(0, -1)[None], statistics_text(measures))


NODES = [NoiseMapStats]
