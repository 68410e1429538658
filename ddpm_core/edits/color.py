"""A colour pushed into a region (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 4 and
figure 6)."""

from __future__ import annotations

import dataclasses
import math
import re

import torch
from torch import Tensor

from ..checks import BadArgument, check_mask
from ..maps import NoiseMaps
from .window import steps_between

BT709 = (0.2126, 0.7152, 0.0722)  # red, green and blue in the luminance (ITU-R BT.709)


def push_color(
    maps: NoiseMaps, target: Tensor, mask: Tensor, *, strength: float = 0.05, start: float = 70, end: float = 20
) -> NoiseMaps:
    """Push the picture towards ``target`` inside ``mask``: z_t += s B (M - x0_hat_t) for t from
    ``start`` down to ``end``.

    target    M, (1 or B, C, *S), a clean latent in the model's space: the encoding of the picture
              with the colour painted in
    mask      B, (1 or B, 1, *S) in [0, 1]
    strength  s at 100 steps. The pushes of single steps add up like the square root of their
              number, so s is scaled by sqrt(100 / steps).
    start, end  t in per cent of the schedule's steps, 100 is the noisy end

    x0_hat is the prediction of the replay itself, so the push ends where M is reached: the
    residuals get up s B M, and ``pull`` up s B for the replay to multiply with x0_hat. No step goes
    farther than to M in the place of its prediction, so a greater s does not overshoot. A step
    without noise is not pushed. Raises BadArgument.
    """
    shape = tuple(maps.latents.shape[1:])
    if tuple(target.shape) not in (shape, (1, *shape[1:])):
        raise BadArgument("target", f"target must have the maps' shape {shape}; got {tuple(target.shape)}.")
    check_mask(mask, shape)
    if not mask.any():
        nothing = "it is 0 everywhere, so there is nothing to push the colour into"
        raise BadArgument("mask", f"mask must not be empty: {nothing}.")
    chosen = steps_between(maps, start, end)
    if maps.eta == 0:
        reason = "A colour is pushed through the noise of the steps, and these maps have none (eta 0)"
        raise BadArgument("maps", f"{reason}: invert with eta above 0.")
    ups = [step.up if inside else 0.0 for inside, step in zip(chosen, maps.steps)]
    if not any(ups):
        raise BadArgument("start", f"No step with noise lies between start {start:g} and end {end:g} per cent.")
    scale = strength * math.sqrt(100 / maps.total_steps)
    weights = maps.per_step([scale * up for up in ups]).to(maps.latents)
    reach = maps.per_step([step.reach for step in maps.steps]).to(maps.latents)
    before = torch.zeros_like(weights) if maps.pull is None else maps.pull
    pull = torch.minimum(before + weights * mask.to(weights), reach)
    residuals = maps.residuals + (pull - before).double() * target.to(maps.residuals)
    return dataclasses.replace(maps, residuals=residuals, pull=pull)


def parse_color(text: str) -> tuple[float, float, float]:
    """RGB in [0, 1] from "#rgb", "#rrggbb" (the # may be left out), "rgb(r, g, b)" or a name, as
    Pillow reads them. Raises BadArgument."""
    from PIL import ImageColor

    written = text.strip()
    if re.fullmatch(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}", written):
        written = f"#{written}"
    try:
        return tuple(value / 255 for value in ImageColor.getrgb(written)[:3])
    except ValueError as error:
        rule = "A colour is written #1e90ff, rgb(30, 144, 255) or as a name such as forestgreen"
        raise BadArgument("text", f"{rule}; got {text!r}.") from error


def luminance(picture: Tensor) -> Tensor:
    """(..., 3) -> (..., 1)"""
    return (picture * picture.new_tensor(BT709)).sum(-1, keepdim=True)


def paint(picture: Tensor, mask: Tensor, color: tuple[float, float, float], *, keep_lights: bool = False) -> Tensor:
    """The picture with a colour painted into the mask. picture (B, H, W, 3) and mask (B or 1, H, W,
    1) in [0, 1].

    ``keep_lights`` keeps lights and darks: where the picture is lighter than the mask's mean
    luminance the colour goes as far towards white, where it is darker towards black.
    """
    rgb = torch.tensor(color, dtype=picture.dtype, device=picture.device)
    coat = rgb.expand_as(picture)
    if keep_lights:
        light = luminance(picture)
        of_each = {"dim": (-3, -2, -1), "keepdim": True}
        middle = (light * mask).sum(**of_each) / mask.sum(**of_each).clamp(min=1e-6)
        middle = middle.clamp(1e-3, 1 - 1e-3)
        lighter = ((light - middle) / (1 - middle)).clamp(min=0)
        darker = (light / middle).clamp(max=1)
        coat = (rgb + lighter * (1 - rgb)) * darker
    return picture + mask * (coat - picture)
