"""MaskFromPrompts: where an edit will change the picture, read off its noise maps before any edit
(arXiv 2210.11427, DiffEdit: Diffusion-based semantic image editing with mask guidance, on the path
of arXiv 2304.06140)."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate

from ..ddpm_core import NoiseMaps
from ..ddpm_core.measure.pictures import from_image, kept_in_grey, labelled_grid
from ..ddpm_core.regions import HARDLY, contrast, mask_of
from .host.guided import make_guider
from .host.masks import MASK_REMEDY, both_masks, noise_mask
from .host.path import difference_on
from .host.wires import (
    ALL_STEPS,
    NOISE_MAPS_TOOLTIP,
    NOT_FINITE,
    NodeError,
    NoiseMapsType,
    Socket,
    check_fits,
    known,
    maps_latent,
    naming,
    say,
    window_inputs,
    window_sockets,
)

NODE = "MaskFromPrompts"
ALIASES = ["automatic mask", "auto mask", "mask from text", "DiffEdit", "what will change", "LEDITS++"]
LEAST_SIDE = 256  # pixels of the picture of what will change, so that the words below it fit


class MaskFromPrompts(io.ComfyNode):
    """A mask from what two prompts predict (arXiv 2210.11427, DiffEdit: Diffusion-based semantic
    image editing with mask guidance), on the path of the noise maps, whose predictions under the
    source prompt are stored."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskFromPrompts",
            display_name="Mask From Prompts",
            category="edit-friendly noise maps",
            description="Where the target prompt will change the picture, before the edit: a mask for Noise Map Edit, "
            "and a picture to look at. One more sample a step, many steps in one call.",
            **known(io.Schema, search_aliases=ALIASES),
            inputs=[
                io.Model.Input("model", tooltip="The model that the picture was inverted with."),
                io.Conditioning.Input("positive", tooltip="The target prompt of the edit: the same text."),
                io.Conditioning.Input("negative", tooltip="The negative prompt of the inversion; unused at its cfg 1."),
                NoiseMapsType.Input("noise_maps", tooltip=f"{NOISE_MAPS_TOOLTIP} As inverted, before other changes."),
                io.Vae.Input("vae", tooltip="The VAE that encoded the picture, for the picture of what will change."),
                *_shape_inputs(),
                *window_inputs("compared", 100.0, 0.0),
                io.Float.Input(
                    "cfg",
                    default=-1.0,
                    min=-1.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance at which the prompts are compared: that of the inversion. -1: as the noise maps "
                    "remember it; files made before version 0.2 do not.",
                    **known(io.Float.Input, advanced=True),
                ),
                io.Mask.Input("mask", optional=True, tooltip="A mask of your own: the result never goes beyond it."),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        noise_maps,
        vae,
        threshold,
        softness,
        grow,
        start,
        end,
        cfg,
        mask=None,
        **kwargs,
    ) -> io.NodeOutput:
        check_fits(NODE, noise_maps, model)
        sockets = {name: Socket(name) for name in ("threshold", "softness", "grow")}
        sockets |= {"denoise": Socket("model", NOT_FINITE), "mask": Socket("mask", MASK_REMEDY)}
        with naming(NODE, "noise_maps", **sockets, **window_sockets(ALL_STEPS)):
            guider = make_guider(model, positive, negative, _known_cfg(noise_maps) if cfg < 0 else cfg)
            amount = difference_on(noise_maps, guider, start=start, end=end)
            region = mask_of(amount, threshold=threshold, softness=softness, grow=grow)
            if mask is not None:
                region = both_masks(region, noise_mask(mask, noise_maps.latents.shape[1:]))
            region = both_masks(region, noise_maps.mask)
        pictures = vae.decode(maps_latent(noise_maps, model))[..., :3]
        region = _of_size(region, pictures.shape[1:-1])
        differs = contrast(amount, noise_maps).repeat_interleave(len(region) // len(amount))
        labels = [_words(*values) for values in zip(region.mean((1, 2)).tolist(), differs.tolist())]
        report = "\n".join(label.replace("\n", "; ") for label in labels)
        if (differs < HARDLY).any():
            say(NODE, f"{report}. Name in both prompts what shall change.")
        return io.NodeOutput(region, _sheets(pictures, region, labels), report)


def _shape_inputs() -> list:
    return [
        io.Float.Input(
            "threshold",
            default=0.4,
            min=0.01,
            max=1.0,
            step=0.01,
            tooltip="How much the prompts must differ in a cell, as a share of where they differ most: less takes in "
            "more of the picture.",
        ),
        io.Float.Input(
            "softness",
            default=0.4,
            min=0.0,
            max=2.0,
            step=0.01,
            tooltip="Width of the ramp around the threshold: 0 is a hard edge; on the ramp edit and source are mixed.",
        ),
        io.Int.Input(
            "grow",
            default=0,
            min=0,
            max=64,
            tooltip="Latent cells (8 pixels in most models) by which the mask grows: for a new shape that is larger "
            "than the old one.",
        ),
    ]


def _outputs() -> list:
    return [
        io.Mask.Output(id="region", display_name="MASK", tooltip="Where the edit will change the picture."),
        io.Image.Output(
            id="preview",
            display_name="what will change",
            tooltip="The source: in colours what will change, in dark grey what stays.",
        ),
        io.String.Output(
            id="report",
            display_name="report",
            tooltip="How much of each picture will change, and whether the prompts hardly differ for it.",
        ),
    ]


def _known_cfg(maps: NoiseMaps) -> float:
    if maps.guidance is None:
        problem = "the noise maps do not know the cfg of their inversion, at which the prompts are compared."
        raise NodeError(NODE, "cfg", problem, "Give it here.")
    return maps.guidance


def _of_size(region: Tensor, size: tuple[int, ...]) -> Tensor:
    """A mask (B, 1, *S) as (N, H, W) for pictures (B, H, W, 3), or the frames (B, F, H, W, 3) of
    videos; ``size`` is (H, W) or (F, H, W)."""
    return interpolate(region, size=size, mode="bilinear" if len(size) == 2 else "trilinear").flatten(0, -3)


def _words(share: float, differs: float) -> str:
    return f"will change: {100 * share:.0f} %" + ("\nthe prompts hardly differ" if differs < HARDLY else "")


def _sheets(pictures: Tensor, region: Tensor, labels: list[str]) -> Tensor:
    """(N, H, W, 3): what will change of each picture, with its words below."""
    shown = kept_in_grey(pictures.reshape(len(region), *pictures.shape[-3:]).movedim(-1, 1), region[:, None])
    side, lines = max(LEAST_SIDE, *shown.shape[-2:]), max(label.count("\n") for label in labels)
    labels = [label + "\n" * (lines - label.count("\n")) for label in labels]
    sheets = [from_image(labelled_grid([[pair]], side)) for pair in zip(labels, shown)]
    return torch.stack(sheets).movedim(1, -1)


NODES = [MaskFromPrompts]
