"""Edits of noise maps that need no prompt (paper section 4 and figures 5 and 6); each returns new maps."""

from __future__ import annotations

import dataclasses
import math
import re

import torch
from torch import Tensor

from .inversion import item_noise
from .maps import NoiseMaps

FILLS = ("noise", "wrap")
FLIPS = {"left-right": -1, "upside down": -2}


def shift(maps: NoiseMaps, dx: int, dy: int, *, fill: str = "noise", seed: int = 0) -> NoiseMaps:
    """Move the picture by whole latent cells: ``dx`` to the right, ``dy`` down (negative: left, up).

    Latents, residuals, predictions, the mask and a colour push move together. ``fill`` says what comes into the vacated cells: "wrap" takes what left at
    the other side; "noise" makes them new: x_0 continues its border, the path is drawn around it by eq. 6, and every step adds native
    noise of its own scale (up z, z ~ N(0, I)), so that the model draws something that fits. The mask is 1 there. Shifts that follow each other
    need a ``seed`` each, or their cells get the same noise.
    """
    if fill not in FILLS:
        raise ValueError(f"fill must be one of {', '.join(FILLS)}; got {fill!r}.")
    height, width = maps.latents.shape[-2:]
    if abs(dx) >= width or abs(dy) >= height:
        raise ValueError(f"A shift must leave a part of the picture: |x| < {width} and |y| < {height} latent cells; got x {dx}, y {dy}.")

    def roll(tensor: Tensor) -> Tensor:
        return tensor.roll((dy, dx), dims=(-2, -1))

    fields = {name: roll(getattr(maps, name)) for name in ("latents", "residuals", "predictions")}
    mask, pull = (None if tensor is None else roll(tensor) for tensor in (maps.mask, maps.pull))
    if fill == "noise":
        rows = (torch.arange(height) - dy).clamp(0, height - 1)
        columns = (torch.arange(width) - dx).clamp(0, width - 1)
        vacated = (rows != torch.arange(height) - dy)[:, None] | (columns != torch.arange(width) - dx)
        vacated = vacated.to(maps.latents.device)

        def extend(tensor: Tensor) -> Tensor:
            return tensor[..., rows, :][..., columns]

        alphas, sigmas, ups = (per_step(maps, [getattr(step, name) for step in maps.steps]) for name in ("alpha", "sigma", "up"))
        x0 = extend(maps.latents[-1:])
        path, z = fresh_noise(maps, seed, 2 * len(maps.residuals)).chunk(2)
        new = {"latents": torch.cat((alphas * x0 + sigmas * path, x0)), "residuals": ups * z, "predictions": extend(maps.predictions)}
        fields = {name: torch.where(vacated, new[name].to(field), field) for name, field in fields.items()}
        mask = None if mask is None else mask.masked_fill(vacated, 1.0)
        pull = None if pull is None else pull.masked_fill(vacated, 0.0)
    return dataclasses.replace(maps, **fields, mask=mask, pull=pull)


def flip(maps: NoiseMaps, direction: str) -> NoiseMaps:
    """Mirror the picture: everything that the maps hold, "left-right" or "upside down"."""
    if direction not in FLIPS:
        raise ValueError(f"direction must be one of {', '.join(FLIPS)}; got {direction!r}.")
    held = {name: getattr(maps, name) for name in ("latents", "residuals", "predictions", "mask", "pull")}
    return dataclasses.replace(maps, **{name: None if tensor is None else tensor.flip(FLIPS[direction]) for name, tensor in held.items()})


def fresh_noise(maps: NoiseMaps, seed: int, count: int) -> Tensor:
    """Standard normal noise (count, B, C, *S), float64, drawn after the numbers that an inversion with the same seed has used."""
    return item_noise(maps.latents.shape[1:], seed, maps.total_steps + count)[-count:].to(maps.residuals)


def per_step(maps: NoiseMaps, values: list[float]) -> Tensor:
    """One value a step, or a level, in the shape that multiplies residuals or latents: (len, 1, 1, ...), float64."""
    return maps.residuals.new_tensor(values).view(-1, *[1] * (maps.latents.dim() - 1))


def steps_between(maps: NoiseMaps, start: float, end: float) -> list[bool]:
    """Which of the maps' steps lie from ``start`` down to ``end``, t in per cent of the whole schedule, 100 at its noisy end. Raises ValueError for none."""
    if not 0 <= end < start <= 100:
        raise ValueError(f"start and end are per cent of the steps with 0 <= end < start <= 100; got start {start:g}, end {end:g}.")
    total = maps.total_steps
    times = [100 * (total - maps.skipped - i) / total for i in range(len(maps.residuals))]
    chosen = [end <= t <= start for t in times]
    if not any(chosen):
        raise ValueError(f"No step lies between start {start:g} and end {end:g} per cent; these maps begin at {times[0]:g} per cent.")
    return chosen


def push_color(maps: NoiseMaps, target: Tensor, mask: Tensor, *, strength: float = 0.05, start: float = 70, end: float = 20) -> NoiseMaps:
    """Push the picture towards ``target`` inside ``mask``: z_t += s B (M - x0_hat_t) for t from ``start`` down to ``end`` (paper section 4).

    target    M, (1 or B, C, *S), a clean latent in the model's space: the encoding of the picture with the colour painted in
    mask      B, (1 or B, 1, *S) in [0, 1]
    strength  s at 100 steps. The pushes of single steps add up like the square root of their number, so s is scaled by sqrt(100 / steps).
    start, end  t in per cent of the schedule's steps, 100 is the noisy end

    x0_hat is the prediction of the replay itself, so the push ends where M is reached: the residuals get up s B M, and ``pull`` up s B for the replay to
    multiply with x0_hat. No step goes farther than to M in the place of its prediction, so a greater s does not overshoot. A step without noise is not
    pushed. Raises ValueError.
    """
    shape = maps.latents.shape[1:]
    if target.dim() != len(shape) or target.shape[0] not in (1, shape[0]) or target.shape[1:] != shape[1:]:
        raise ValueError(f"target must have the maps' shape {tuple(shape)}; got {tuple(target.shape)}.")
    if mask.dim() != len(shape) or mask.shape[0] not in (1, shape[0]) or mask.shape[1] != 1 or mask.shape[2:] != shape[2:]:
        raise ValueError(f"mask must have shape {(shape[0], 1, *shape[2:])}; got {tuple(mask.shape)}.")
    if not mask.any():
        raise ValueError("mask must not be empty: it is 0 everywhere, so there is nothing to push the colour into.")
    chosen = steps_between(maps, start, end)
    if maps.eta == 0:
        raise ValueError("A colour is pushed through the noise of the steps, and these maps have none (eta 0): invert with eta above 0.")
    scale = strength * math.sqrt(100 / maps.total_steps)
    ups = [step.up if inside else 0.0 for inside, step in zip(chosen, maps.steps)]
    if not any(ups):
        raise ValueError(f"No step with noise lies between start {start:g} and end {end:g} per cent.")
    weights, reach = (per_step(maps, values).to(maps.latents) for values in ([scale * up for up in ups], [step.reach for step in maps.steps]))
    before = torch.zeros_like(weights) if maps.pull is None else maps.pull
    pull = torch.minimum(before + weights * mask.to(weights), reach)
    residuals = maps.residuals + (pull - before).double() * target.to(maps.residuals)
    return dataclasses.replace(maps, residuals=residuals, pull=pull)


def parse_color(text: str) -> tuple[float, float, float]:
    """RGB in [0, 1] from "#rgb" or "#rrggbb" (the # may be left out). Raises ValueError."""
    digits = text.strip().removeprefix("#")
    if not re.fullmatch(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}", digits):
        raise ValueError(f"A colour is written #rrggbb or #rgb in hexadecimal digits, for instance #1e90ff; got {text!r}.")
    if len(digits) == 3:
        digits = "".join(2 * d for d in digits)
    return tuple(int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))


def paint(picture: Tensor, mask: Tensor, color: tuple[float, float, float], *, keep_lights: bool = False) -> Tensor:
    """The picture with a colour painted into the mask. picture (B, H, W, 3) and mask (B or 1, H, W, 1) in [0, 1].

    ``keep_lights`` keeps lights and darks: where the picture is lighter than the mask's mean luminance (ITU-R BT.709) the colour goes as far towards white,
    where it is darker towards black.
    """
    rgb = torch.tensor(color, dtype=picture.dtype, device=picture.device)
    paint = rgb.expand_as(picture)
    if keep_lights:
        luminance = (picture * picture.new_tensor([0.2126, 0.7152, 0.0722])).sum(-1, keepdim=True)
        whole = {"dim": (-3, -2, -1), "keepdim": True}  # of each picture by itself
        middle = ((luminance * mask).sum(**whole) / mask.sum(**whole).clamp(min=1e-6)).clamp(1e-3, 1 - 1e-3)
        lighter = ((luminance - middle) / (1 - middle)).clamp(min=0)
        darker = (luminance / middle).clamp(max=1)
        paint = (rgb + lighter * (1 - rgb)) * darker
    return picture + mask * (paint - picture)
