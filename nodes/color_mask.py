"""ColorMaskEdit: push a colour into a region of the picture through its noise maps (arXiv
2304.06140, An Edit Friendly DDPM Noise Space, section 4, z_t += s B (M - x0_hat))."""

from __future__ import annotations

import comfy.utils
import torch
from comfy_api.latest import io

from ..ddpm_core import NoiseMaps, paint, parse_color, push_color
from ..ddpm_core.checks import check_finite
from .host.masks import MASK_REMEDY, latent_mask
from .host.wires import (
    NOISE_MAPS_TOOLTIP,
    NodeError,
    NoiseMapsType,
    Socket,
    check_fits,
    known,
    naming,
    window_inputs,
    window_sockets,
)

SAME_PICTURE = "Give the picture that was inverted, in the same size."


class ColorMaskEdit(io.ComfyNode):
    """A colour pushed into a region (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 4
    and figure 6)."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ColorMaskEdit",
            display_name="Color Mask Edit",
            category="edit-friendly noise maps",
            description="Push a colour, or what you painted by hand, into a region. The prompts must not name the old "
            "colour: leave them empty, or name the new one.",
            **known(io.Schema, search_aliases=["recolor", "recolour", "change colour", "paint region", "stroke edit"]),
            inputs=[
                NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP),
                io.Model.Input("model", tooltip="The model that the picture was inverted with."),
                io.Vae.Input("vae", tooltip="The VAE that encoded the picture."),
                io.Image.Input("image", tooltip="The source picture."),
                io.Mask.Input("mask", tooltip="Where the colour goes; soft edges are kept."),
                io.String.Input(
                    "color",
                    default="#1e90ff",
                    tooltip="The colour: #rrggbb, rgb(30, 144, 255) or a name such as forestgreen.",
                ),
                io.Combo.Input(
                    "shading",
                    options=["flat", "keep lights and darks"],
                    default="flat",
                    tooltip="How the colour is painted into the mask: as it is, or lighter and darker where the "
                    "picture is.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.5,
                    min=0.0,
                    max=2.0,
                    step=0.005,
                    tooltip="How strong the push of each step is. Paper: 0.05 at 100 steps; it means the same push at "
                    "any number of steps. 0.2 to 0.5 suit latent models; the push ends where the colour is reached.",
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
        check_fits("ColorMaskEdit", noise_maps, model)
        with naming("ColorMaskEdit", "noise_maps", **_sockets("image" if painted is None else "painted")):
            region = latent_mask(mask, noise_maps.latents.shape[1:])
            picture = _paint(image, mask, color, shading) if painted is None else painted
            target = model.get_model_object("latent_format").process_in(vae.encode(picture[..., :3]))
            _check_size(painted is not None, picture, target, noise_maps)
            check_finite(target, "encoded", "the encoded picture")
            return io.NodeOutput(push_color(noise_maps, target, region, strength=strength, start=start, end=end))


def _check_size(is_painted: bool, picture: torch.Tensor, encoded: torch.Tensor, maps: NoiseMaps) -> None:
    """Raise NodeError, in pixels, where the picture (B, H, W, 3) has another size than the one that
    was inverted."""
    height, width = picture.shape[1:3]
    rows, columns = maps.latents.shape[-2:]
    if encoded.shape[-2:] != (rows, columns):
        cell = round(height / encoded.shape[-2])
        problem = f"it has {width} x {height} pixels, and {columns * cell} x {rows * cell} were inverted."
        raise NodeError("ColorMaskEdit", "painted" if is_painted else "image", problem, SAME_PICTURE)


def _sockets(picture: str) -> dict[str, Socket]:
    """Where the core's arguments come in; ``picture`` is the socket of what is pushed towards."""
    window = "Lower end, raise start, or lower skip of the inversion; the paper has 70 and 20."
    return {
        "maps": Socket("noise_maps", "The paper has eta 1."),
        "target": Socket(picture, SAME_PICTURE),
        "mask": Socket("mask", f"{MASK_REMEDY} Draw the region that shall change."),
        "text": Socket("color"),
        "encoded": Socket(picture, "Look at what makes it, and at the VAE: in half precision it can overflow."),
        **window_sockets(window),
    }


def _paint(image: torch.Tensor, mask: torch.Tensor, color: str, shading: str) -> torch.Tensor:
    """image (B or 1, H, W, 3) with the colour in the mask (B or 1, h, w). Raises BadArgument."""
    rgb = parse_color(color)
    image = image[..., :3]
    if mask.dim() == 2:
        mask = mask[None]
    if mask.shape[-2:] != image.shape[1:3]:
        mask = comfy.utils.common_upscale(mask[:, None], image.shape[2], image.shape[1], "bilinear", "disabled")[:, 0]
    batch = max(len(mask), len(image))
    mask, image = comfy.utils.repeat_to_batch_size(mask, batch), comfy.utils.repeat_to_batch_size(image, batch)
    return paint(image, mask[..., None].to(image), rgb, keep_lights=shading != "flat")


NODES = [ColorMaskEdit]
