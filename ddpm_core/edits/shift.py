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
    fields = {name: tensor.roll((dy, dx), dims=(-2, -1)) for name, tensor in maps.tensors().items()}
    if fill == "noise":
        rows = (torch.arange(height) - dy).clamp(0, height - 1)
        columns = (torch.arange(width) - dx).clamp(0, width - 1)
        vacated = (rows != torch.arange(height) - dy)[:, None] | (columns != torch.arange(width) - dx)
        vacated = vacated.to(maps.latents.device)
        new = _drawn_anew(maps, rows, columns, seed)
        for name, tensor in fields.items():
            fields[name] = torch.where(vacated, torch.as_tensor(new[name]).to(tensor), tensor)
    return dataclasses.replace(maps, **fields)


def _drawn_anew(maps: NoiseMaps, rows: Tensor, columns: Tensor, seed: int) -> dict[str, Tensor | float]:
    """What the fields hold in vacated cells, where x_0 and the predictions go on as they are at
    ``rows`` and ``columns``."""

    def extend(tensor: Tensor) -> Tensor:
        return tensor[..., rows, :][..., columns]

    def per_step(name: str) -> Tensor:
        return maps.per_step([getattr(step, name) for step in maps.steps])

    drawn = shift_noise(maps.latents.shape[1:], seed, maps.total_steps, len(maps.residuals))
    path, z = (noise.to(maps.residuals) for noise in drawn)
    x0 = extend(maps.latents[-1:])
    return {
        "latents": torch.cat((per_step("alpha") * x0 + per_step("sigma") * path, x0)),
        "residuals": per_step("up") * z,
        "predictions": extend(maps.predictions),
        "mask": 1.0,
        "pull": 0.0,
    }
