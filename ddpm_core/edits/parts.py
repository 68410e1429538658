"""The two parts of noise maps, on which changes of their structure work.

A path is x_t = alpha x_0 + n_t, and a residual

    residual_t = own_t + n_{t-1} - carry n_t,

where n is the path's noise and ``own`` what leads from the model's prediction back to the
picture (and what edits have added): parts of different maps go together without a jump of the
noise level, from whichever step on they change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ..maps import NoiseMaps

Level = Callable[[int], tuple[Tensor, Tensor]]
Own = Callable[[int], Tensor]


def per_level(maps: NoiseMaps, values: list[float]) -> Tensor:
    """Values of the steps (T) as (T+1, 1, ..., 1): each for the level where its step starts, the
    last one for the clean latent too."""
    return maps.per_step([*values, values[-1]])


def noise_at(maps: NoiseMaps, level: int) -> Tensor:
    """The path's noise at a level (B, C, *S); that of the clean latent is 0."""
    alpha = maps.steps[level].alpha if level < len(maps.steps) else 1.0
    return maps.latents[level].double() - alpha * maps.latents[-1].double()


def own_at(maps: NoiseMaps, step: int) -> Tensor:
    """``own`` of a step (B, C, *S)."""
    return maps.residuals[step] - _change(maps, step, noise_at(maps, step), noise_at(maps, step + 1))


def put_together(maps: NoiseMaps, level: Level, own: Own, **changes) -> NoiseMaps:
    """The maps with other parts: ``level(i)`` is (latent, its noise) of a level, ``own(i)`` what is
    a step's own. One after the other, from the noisy end down: maps are large."""
    latents, residuals = torch.empty_like(maps.latents), torch.empty_like(maps.residuals)
    latents[0], noise = level(0)
    for i in range(len(residuals)):
        latents[i + 1], noise_next = level(i + 1)
        residuals[i] = own(i) + _change(maps, i, noise, noise_next)
        noise = noise_next
    return dataclasses.replace(maps, latents=latents, residuals=residuals, **changes)


def _change(maps: NoiseMaps, step: int, noise: Tensor, noise_next: Tensor) -> Tensor:
    """n_{t-1} - carry n_t of a step."""
    return noise_next - maps.steps[step].carry * noise


def blend(noise: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor) -> Tensor:
    """(a n + b m) / sqrt(a^2 + b^2 + 2 a b rho) for noise n, m (B, C, *S) of a level: parts that
    cancel or agree do not change its level.

    rho is their correlation in a whole picture, item by item.
    """
    rho = torch.cosine_similarity(noise.flatten(1), other.flatten(1), dim=-1)
    rho = rho.view(-1, *[1] * (noise.dim() - 1))
    size = (weight**2 + other_weight**2 + 2 * weight * other_weight * rho).clamp(min=0.01).sqrt()
    return (weight * noise + other_weight * other) / size
