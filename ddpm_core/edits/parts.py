"""The two parts of noise maps, on which changes of their structure work.

A path is x_t = alpha x_0 + n_t, and a residual

    residual_t = own_t + n_{t-1} - carry n_t,

where n is the path's noise and ``own`` what leads from the model's prediction back to the
picture (and what edits have added): parts of different maps go together without a jump of the
noise level, from whichever step on they change.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..maps import NoiseMaps


def per_level(maps: NoiseMaps, values: list[float]) -> Tensor:
    """Values of the steps (T) as (T+1, 1, ..., 1): each for the level where its step starts, the
    last one for the clean latent too."""
    return maps.per_step([*values, values[-1]])


def parts_of(maps: NoiseMaps) -> tuple[Tensor, Tensor]:
    """(own (T, B, C, *S), noise (T+1, B, C, *S)); the noise of the clean latent is 0."""
    clean = maps.latents[-1:].double()
    noise = maps.latents.double() - maps.per_step([*(step.alpha for step in maps.steps), 1.0]) * clean
    return maps.residuals - _change(maps, noise), noise


def put_together(maps: NoiseMaps, own: Tensor, latents: Tensor, noise: Tensor, **changes) -> NoiseMaps:
    """The maps with the parts own (T, B, C, *S) and noise (T+1, B, C, *S), on the path
    ``latents``."""
    residuals = own + _change(maps, noise)
    return dataclasses.replace(maps, latents=latents.to(maps.latents), residuals=residuals, **changes)


def _change(maps: NoiseMaps, noise: Tensor) -> Tensor:
    """n_{t-1} - carry n_t of every step: (T+1, B, C, *S) -> (T, B, C, *S)."""
    return noise[1:] - maps.per_step([step.carry for step in maps.steps]) * noise[:-1]


def blend(noise: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor) -> Tensor:
    """(a n + b m) / sqrt(a^2 + b^2 + 2 a b rho) for noise n, m (T+1, B, C, *S): parts that
    cancel or agree do not change its level.

    rho is their correlation in a whole picture at a level, item by item.
    """
    rho = torch.cosine_similarity(noise.flatten(2), other.flatten(2), dim=-1)
    rho = rho.view(*noise.shape[:2], *[1] * (noise.dim() - 2))
    size = (weight**2 + other_weight**2 + 2 * weight * other_weight * rho).clamp(min=0.01).sqrt()
    return (weight * noise + other_weight * other) / size
