"""ColorMaskEdit: push a colour into a region of the picture through its noise maps (paper section
4, z_t += s B (M - x0_hat))."""

from __future__ import annotations

import comfy.utils
import torch
from comfy_api.latest import io

from ..ddpm_core import paint, parse_color, push_color
from .host.guided import NOISE_MAPS_TOOLTIP, NodeError, NoiseMapsType, check_fits, latent_mask, naming, window_inputs

NODE = "ColorMaskEdit"


class ColorMaskEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ColorMaskEdit",
            display_name="Color Mask Edit",
            category="edit-friendly noise maps",
            description="Push a colour, or what you painted by hand, into a region. The prompts must not name the old colour: "
            "leave them empty, or name the new one.",
            inputs=[
                NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP),
                io.Model.Input("model", tooltip="The model that the picture was inverted with."),
                io.Vae.Input("vae", tooltip="The VAE that encoded the picture."),
                io.Image.Input("image", tooltip="The source picture."),
                io.Mask.Input("mask", tooltip="Where the colour goes; soft edges are kept."),
                io.String.Input("color", default="#1e90ff", tooltip="The colour as #rrggbb."),
                io.Combo.Input(
                    "shading",
                    options=["flat", "keep lights and darks"],
                    default="flat",
                    tooltip="How the colour is painted into the mask: as it is, or lighter and darker where the picture is.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.5,
                    min=0.0,
                    max=2.0,
                    step=0.005,
                    tooltip="How strong the push of each step is. Paper: 0.05 at 100 steps; it means the same push at any number of steps. "
                    "0.2 to 0.5 suit latent models; the push ends where the colour is reached.",
                ),
                *window_inputs("pushed", 70.0, 20.0, " Paper: 70.", " Paper: 20."),
                io.Image.Input(
                    "painted",
                    optional=True,
                    tooltip="The picture with the change painted in by hand; it replaces colour and shading.",
                ),
            ],
            outputs=[
                NoiseMapsType.Output(
                    id="pushed",
                    display_name="pushed_maps",
                    tooltip="The pushed maps, for Noise Map Edit or another edit of maps.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, noise_maps, model, vae, image, mask, color, shading, strength, start, end, painted=None, **kwargs
    ) -> io.NodeOutput:
        check_fits(NODE, noise_maps, model)
        if not mask.any():
            raise NodeError(
                NODE, "mask", f"it is empty (all zeros, {tuple(mask.shape)}).", "Draw the region that shall change."
            )
        _check_window(noise_maps, start, end)
        socket = "image" if painted is None else "painted"
        if painted is None:
            painted = _paint(image, mask, color, shading)
        target = model.get_model_object("latent_format").process_in(vae.encode(painted[..., :3]))
        shape = noise_maps.latents.shape[1:]
        if target.shape[0] not in (1, shape[0]) or target.shape[1:] != shape[1:]:
            raise NodeError(
                NODE,
                socket,
                f"encoded it has the shape {tuple(target.shape)} and the maps have {tuple(shape)}.",
                "Give the picture that was inverted, in the same size.",
            )
        with naming(NODE, "mask", "Look at what makes the mask."):
            mask = latent_mask(mask, shape)
        with naming(NODE, "start", "Lower start and end, or lower skip of the inversion."):
            return io.NodeOutput(push_color(noise_maps, target, mask, strength=strength, start=start, end=end))


def _paint(image: torch.Tensor, mask: torch.Tensor, color: str, shading: str) -> torch.Tensor:
    """image (B or 1, H, W, 3) with the colour in the mask (B or 1, h, w)."""
    try:
        rgb = parse_color(color)
    except ValueError as error:
        raise NodeError(NODE, "color", str(error)) from error
    image = image[..., :3]
    if mask.dim() == 2:
        mask = mask[None]
    if mask.shape[-2:] != image.shape[1:3]:
        mask = comfy.utils.common_upscale(mask[:, None], image.shape[2], image.shape[1], "bilinear", "disabled")[:, 0]
    batch = max(len(mask), len(image))
    mask, image = comfy.utils.repeat_to_batch_size(mask, batch), comfy.utils.repeat_to_batch_size(image, batch)
    return paint(image, mask[..., None].to(image), rgb, keep_lights=shading != "flat")


def _check_window(maps, start: float, end: float) -> None:
    if end >= start:
        problem = f"it must be less than start, since the steps go from high to low per cent; got start {start:g}, end {end:g}."
        raise NodeError(NODE, "end", problem, "Lower end, or raise start; the paper has 70 and 20.")
    if maps.eta == 0:
        raise NodeError(
            NODE,
            "noise_maps",
            "they were inverted with eta 0, so their steps have no noise to push.",
            "Invert with eta above 0; the paper has 1.",
        )


NODES = [ColorMaskEdit]
