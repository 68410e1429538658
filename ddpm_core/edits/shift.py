"""The picture moved in its frame (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 4
and figure 5)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..checks import BadArgument
from ..maps import NoiseMaps
from ..noise import shift_noise

FILLS = ("noise", "wrap")


def shift(maps: NoiseMaps, dx: int, dy: int, *, fill: str = "noise", seed: int = 0) -> NoiseMaps:
    """Move the picture by whole latent cells: ``dx`` to the right, ``dy`` down (negative: left,
    up).

    All that the maps hold moves together. ``fill`` says what comes into the vacated cells: "wrap"
    takes what left at the other side; "noise" makes them new: x_0 continues its border, the path is
    drawn around it by eq. 6, and every step adds native noise of its own scale (up z, z ~ N(0, I)),
    so that the model draws something that fits. The mask is 1 there. Shifts that follow each other
    need a ``seed`` each, or their cells get the same noise. Raises BadArgument.
    """
    if fill not in FILLS:
        raise BadArgument("fill", f"fill must be one of {', '.join(FILLS)}; got {fill!r}.")
    height, width = maps.latents.shape[-2:]
    for name, axis, by, side in (("dx", "x", dx, width), ("dy", "y", dy, height)):
        if abs(by) >= side:
            rule = f"A shift must leave a part of the picture: |{axis}| < {side} latent cells"
            raise BadArgument(name, f"{rule}; got {axis} {by}.")
    drawn = shift_noise(maps.latents.shape[1:], seed, maps.total_steps, len(maps.residuals)) if fill == "noise" else ()
    fields = {name: _moved(tensor, dx, dy) for name, tensor in maps.tensors().items()}
    if fill == "noise":
        rows = (torch.arange(height) - dy).clamp(0, height - 1)
        columns = (torch.arange(width) - dx).clamp(0, width - 1)
        vacated = (rows != torch.arange(height) - dy)[:, None] | (columns != torch.arange(width) - dx)
        vacated = vacated.to(maps.latents.device)

        def put(name: str, i, new: Tensor | float) -> None:
            held = fields[name][i]
            held.copy_(torch.where(vacated, torch.as_tensor(new).to(held), held))

        def extend(tensor: Tensor) -> Tensor:
            """As it goes on beyond its border."""
            return tensor[..., rows, :][..., columns]

        x0 = extend(maps.latents[-1])
        put("latents", -1, x0)
        for i, (step, path, z) in enumerate(zip(maps.steps, *drawn)):  # one after the other: maps are large
            path, z = (noise.to(maps.residuals) for noise in (path, z))
            put("latents", i, step.alpha * x0.double() + step.sigma * path)
            put("residuals", i, step.up * z)
            put("predictions", i, extend(maps.predictions[i]))
        for name, new in (("mask", 1.0), ("pull", 0.0)):
            if name in fields:
                put(name, ..., new)
    return dataclasses.replace(maps, **fields)


def _moved(tensor: Tensor, dx: int, dy: int) -> Tensor:
    moved = torch.empty_like(tensor)
    for part, new in zip(tensor, moved):
        new.copy_(part.roll((dy, dx), dims=(-2, -1)))
    return moved
