"""LoadDemoModel and DrawDemoScene: the small model that ships with the pack, pictures for it."""

from __future__ import annotations

from comfy_api.latest import io

from ..ddpm_core.demo import scenes
from .host.demo_model import load_clip, load_model, load_vae
from .host.wires import known, naming


class LoadDemoModel(io.ComfyNode):
    """A latent diffusion model (arXiv 2112.10752, High-Resolution Image Synthesis with Latent
    Diffusion Models) of drawn scenes."""

    @classmethod
    def define_schema(cls):
        words = 'such as "a striped red star on a blue background"'
        return io.Schema(
            node_id="LoadDemoModel",
            display_name="Load Demo Model",
            category="edit-friendly noise maps/demo",
            description="A small diffusion model of drawn scenes that ships with the pack: try every node with no "
            "download. It draws 192 x 192 pictures.",
            **known(io.Schema, search_aliases=["example model", "test model", "tiny checkpoint"]),
            inputs=[],
            outputs=[
                io.Model.Output(
                    id="model", display_name="MODEL", tooltip="The denoiser, for every node that takes a MODEL."
                ),
                io.Clip.Output(id="clip", display_name="CLIP", tooltip=f"The text encoder. It knows captions {words}."),
                io.Vae.Output(
                    id="vae", display_name="VAE", tooltip="The autoencoder: 8 pixels a latent cell, 4 channels."
                ),
            ],
        )

    @classmethod
    def execute(cls, **kwargs) -> io.NodeOutput:
        with naming("LoadDemoModel", None, "Install the pack again."):
            return io.NodeOutput(load_model(), load_clip(), load_vae())


class DrawDemoScene(io.ComfyNode):
    """A scene of the demo model's own world, whose true edits are known."""

    @classmethod
    def define_schema(cls):
        shapes, fills, colors, grounds = map(list, (scenes.SHAPES, scenes.FILLS, scenes.COLORS, scenes.BACKGROUNDS))
        layout = "Which position, size, rotation, shading and dots."
        caption = "What the picture shows, as the demo model was taught to say it."
        return io.Schema(
            node_id="DrawDemoScene",
            display_name="Draw Demo Scene",
            category="edit-friendly noise maps/demo",
            description="A picture for the demo model: one shape on a shaded background with a few grey dots. "
            "Position, size, rotation, shading and dots come from the layout number.",
            **known(io.Schema, search_aliases=["example picture", "test image", "shapes"]),
            inputs=[
                io.Combo.Input("shape", options=shapes, default="star", tooltip="The shape."),
                io.Combo.Input("fill", options=fills, default="striped", tooltip="How the shape is filled."),
                io.Combo.Input("color", options=colors, default="red", tooltip="The colour of the shape."),
                io.Combo.Input("background", options=grounds, default="blue", tooltip="The colour of the background."),
                io.Int.Input("layout", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, tooltip=layout),
            ],
            outputs=[
                io.Image.Output(id="image", display_name="IMAGE", tooltip="The picture, 192 x 192."),
                io.Mask.Output(id="mask", display_name="MASK", tooltip="The shape's region."),
                io.String.Output(id="caption", display_name="caption", tooltip=caption),
            ],
        )

    @classmethod
    def execute(cls, shape, fill, color, background, layout, **kwargs) -> io.NodeOutput:
        scene = scenes.scene_with(layout, shape=shape, fill=fill, color=color, background=background)
        picture, region = scenes.render([scene]).movedim(1, -1), scenes.coverage([scene])[:, 0]
        return io.NodeOutput(picture, region, scenes.caption(scene))


NODES = [LoadDemoModel, DrawDemoScene]
