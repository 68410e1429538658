"""LoadDemoModel and DrawDemoScene: the small model that ships with the pack, pictures for it."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..ddpm_core.demo import scenes
from .host.demo_model import load_clip, load_model, load_vae
from .host.wires import known, naming


class LoadDemoModel(io.ComfyNode):
    """A latent diffusion model (arXiv 2112.10752, High-Resolution Image Synthesis with Latent
    Diffusion Models) of drawn scenes."""

    @classmethod
    def define_schema(cls):
        words = 'such as "a striped red star on a blue background"'
        passed = "which then comes out in the place of the demo model's: a switch that needs no other wire."
        return io.Schema(
            node_id="LoadDemoModel",
            display_name="Load Demo Model",
            category="edit-friendly noise maps/demo",
            description="A small diffusion model of drawn scenes that ships with the pack: try every node with no "
            "download. It draws 192 x 192 pictures.",
            **known(io.Schema, search_aliases=["example model", "test model", "tiny checkpoint"]),
            inputs=[
                io.Model.Input("own_model", optional=True, tooltip=f"A MODEL of your own, {passed}"),
                io.Clip.Input("own_clip", optional=True, tooltip=f"A CLIP of your own, {passed}"),
                io.Vae.Input("own_vae", optional=True, tooltip=f"A VAE of your own, {passed}"),
            ],
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
    def execute(cls, own_model=None, own_clip=None, own_vae=None, **kwargs) -> io.NodeOutput:
        with naming("LoadDemoModel", None, "Install the pack again."):
            return io.NodeOutput(own_model or load_model(), own_clip or load_clip(), own_vae or load_vae())


class DrawDemoScene(io.ComfyNode):
    """A scene of the demo model's own world, whose true edits are known."""

    @classmethod
    def define_schema(cls):
        shapes, fills, colors, grounds = map(list, (scenes.SHAPES, scenes.FILLS, scenes.COLORS, scenes.BACKGROUNDS))
        layout = "Which position, size, rotation, light and pebbles."
        caption = "What the picture shows, as the demo model was taught to say it."
        return io.Schema(
            node_id="DrawDemoScene",
            display_name="Draw Demo Scene",
            category="edit-friendly noise maps/demo",
            description="A picture for the demo model: one thick, lit shape on a shaded ground with a few pebbles. "
            "Position, size, rotation, shading and pebbles come from the layout number. After a run the node shows the "
            "picture.",
            **known(io.Schema, search_aliases=["example picture", "test image", "shapes"]),
            inputs=[
                io.Combo.Input("shape", options=shapes, default="star", tooltip="The shape."),
                io.Combo.Input("fill", options=fills, default="striped", tooltip="How the shape is filled."),
                io.Combo.Input("color", options=colors, default="red", tooltip="The colour of the shape."),
                io.Combo.Input("background", options=grounds, default="blue", tooltip="The colour of the background."),
                io.Int.Input("layout", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, tooltip=layout),
                io.Image.Input(
                    "own_picture",
                    optional=True,
                    tooltip="A picture of your own, which then comes out in the place of the drawing: a switch that "
                    "needs no other wire. The mask is then all of it, and the caption empty.",
                ),
            ],
            outputs=[
                io.Image.Output(id="image", display_name="IMAGE", tooltip="The picture, 192 x 192."),
                io.Mask.Output(id="mask", display_name="MASK", tooltip="The shape's region."),
                io.String.Output(id="caption", display_name="caption", tooltip=caption),
            ],
        )

    @classmethod
    def execute(cls, shape, fill, color, background, layout, own_picture=None, **kwargs) -> io.NodeOutput:
        scene = scenes.scene_with(layout, shape=shape, fill=fill, color=color, background=background)
        if own_picture is None:
            picture, region = scenes.render([scene]).movedim(1, -1), scenes.coverage([scene])[:, 0]
            words = scenes.caption(scene)
        else:
            picture, region, words = own_picture, torch.ones(own_picture.shape[:-1]), ""
        shown = {**ui.PreviewImage(picture, cls=cls).as_dict(), "caption": (words,)}
        return io.NodeOutput(picture, region, words, ui=shown)


NODES = [LoadDemoModel, DrawDemoScene]
