"""Changes of what noise maps hold of the picture: two inversions blended, or one with less structure. Each returns new maps.

Both work on the two parts of a path, x_t = alpha x_0 + n_t, and of a residual,

    residual_t = own_t + n_{t-1} - carry n_t,

where n is the path's noise and ``own`` what leads from the model's prediction back to the picture (and what edits have added): parts of
different maps go together without a jump of the noise level, from whichever step on they change.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .edits import fresh_noise, per_step, steps_between
from .maps import NoiseMaps


def scale(maps: NoiseMaps, share: float, *, start: float = 100, end: float = 0, seed: int = 0) -> NoiseMaps:
    """Keep a ``share`` s of the structure in the steps from ``start`` down to ``end``: less of it, more freedom for the model.

        own' = s own,    n' = s n + sqrt(1 - s^2) m at the level of n,    m: noise as native sampling would have walked it

    share       in [0, 1]: 1 is the maps as they are; at 0 nothing leads back to the picture
    start, end  t in per cent of the schedule's steps, 100 is the noisy end
    seed        of m; changes of maps that follow each other should have different ones

    A colour push is scaled with the rest: push afterwards. Predictions are scaled too, since a later skip takes the history of a second-order step from
    them. Raises ValueError.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The share of structure that is kept must lie in [0, 1]; got {share:g}.")
    shares = _per_level(maps, [share if inside else 1.0 for inside in steps_between(maps, start, end)])
    own, noise = _parts(maps)
    changed = _together(noise, shares, _native(maps, seed), (1 - shares**2).sqrt())
    changes = {"predictions": (shares[:-1] * maps.predictions).to(maps.predictions)}
    if maps.pull is not None:
        changes["pull"] = maps.pull * shares[:-1].to(maps.pull)
    return _whole(maps, shares[:-1] * own, maps.latents.double() - noise + changed, changed, **changes)


def mix(maps: NoiseMaps, other: NoiseMaps, amount: float, *, start: float = 100, end: float = 0, mask: Tensor | None = None) -> NoiseMaps:
    """Blend two inversions of one model and schedule: ``amount`` of ``other`` in the steps from ``start`` down to ``end``, inside ``mask``.

    amount      in [0, 1]: 0 is ``maps``, 1 is ``other``
    start, end  t in per cent of the schedule's steps, 100 is the noisy end
    mask        (1 or B, 1, *S) in [0, 1], default everywhere

    With the weights w of a step, inside the mask, all parts are blended as (1 - w) ours + w theirs; the noise keeps its level, also where that of another
    seed would partly cancel. Steps that one of them skipped are skipped. Raises ValueError for maps that do not belong together.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"The amount of the other maps must lie in [0, 1]; got {amount:g}.")
    maps, other = same_start(maps, other)
    chosen = steps_between(maps, start, end)
    weights = _per_level(maps, [amount if inside else 0.0 for inside in chosen])
    if mask is not None:
        shape = maps.latents.shape[1:]
        if mask.dim() != len(shape) or mask.shape[0] not in (1, shape[0]) or mask.shape[1] != 1 or mask.shape[2:] != shape[2:]:
            raise ValueError(f"mask must have shape {(shape[0], 1, *shape[2:])}; got {tuple(mask.shape)}.")
        weights = weights * mask.to(weights)
    (own, noise), (other_own, other_noise) = _parts(maps), _parts(other)
    clean = maps.latents.double() - noise
    clean = torch.lerp(clean, other.latents.double() - other_noise, weights)
    noise = _together(noise, 1 - weights, other_noise, weights)
    edits = {}
    for name, absent, share in (("mask", 1.0, weights[-1]), ("pull", 0.0, weights[:-1])):
        ours, theirs = getattr(maps, name), getattr(other, name)
        if ours is not None or theirs is not None:
            ours, theirs = (torch.full_like(share, absent) if t is None else t.to(share) for t in (ours, theirs))
            edits[name] = torch.lerp(ours, theirs, share).to(maps.latents)
    predictions = torch.lerp(maps.predictions.double(), other.predictions.double(), weights[:-1]).to(maps.predictions)
    return _whole(maps, torch.lerp(own, other_own, weights[:-1]), clean + noise, noise, predictions=predictions, **edits)


def _per_level(maps: NoiseMaps, values: list[float]) -> Tensor:
    """Values of the steps (S) as (S+1, 1, ..., 1): each for the level where its step starts, the last one for the clean latent too."""
    return per_step(maps, [*values, values[-1]])


def _carry(maps: NoiseMaps) -> Tensor:
    """(S, 1, ..., 1)"""
    return per_step(maps, [step.carry for step in maps.steps])


def _parts(maps: NoiseMaps) -> tuple[Tensor, Tensor]:
    """(own (S, B, C, *S), noise (S+1, B, C, *S)); the noise of the clean latent is 0."""
    clean = maps.latents[-1:].double()
    noise = maps.latents.double() - per_step(maps, [*(step.alpha for step in maps.steps), 1.0]) * clean
    return maps.residuals - (noise[1:] - _carry(maps) * noise[:-1]), noise


def _whole(maps: NoiseMaps, own: Tensor, latents: Tensor, noise: Tensor, **changes) -> NoiseMaps:
    """The maps with the parts own (S, B, C, *S) and noise (S+1, B, C, *S), on the path ``latents``."""
    residuals = own + noise[1:] - _carry(maps) * noise[:-1]
    return dataclasses.replace(maps, latents=latents.to(maps.latents), residuals=residuals, **changes)


def _native(maps: NoiseMaps, seed: int) -> Tensor:
    """Noise (S+1, B, C, *S) as sampling would have walked it: from the first level on each step carries what there is and adds up z."""
    drawn = fresh_noise(maps, seed, 3 * len(maps.residuals))[-len(maps.residuals) :]  # apart from what a shift with this seed draws
    native = [maps.steps[0].sigma * drawn[0]]
    for step, z in zip(maps.steps[:-1], drawn[1:]):
        native.append(step.carry * native[-1] + step.up * z)
    return torch.stack([*native, torch.zeros_like(native[0])])


def _together(noise: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor) -> Tensor:
    """(a n + b m) / sqrt(a^2 + b^2 + 2 a b rho) for noise n, m (S+1, B, C, *S): parts that cancel or agree do not change its level.

    rho is their correlation in a whole picture at a level, item by item.
    """
    rho = torch.cosine_similarity(noise.flatten(2), other.flatten(2), dim=-1).view(*noise.shape[:2], *[1] * (noise.dim() - 2))
    size = (weight**2 + other_weight**2 + 2 * weight * other_weight * rho).clamp(min=0.01).sqrt()
    return (weight * noise + other_weight * other) / size


def same_start(maps: NoiseMaps, other: NoiseMaps) -> tuple[NoiseMaps, NoiseMaps]:
    """Both from the later of their first steps on. Raises ValueError where they do not belong together."""
    for name in ("process", "solver", "eta", "total_steps"):
        ours, theirs = (getattr(m, name) for m in (maps, other))
        if ours != theirs:
            raise ValueError(
                f"Both maps must have the same {name.replace('_', ' ')}; got {getattr(ours, 'value', ours)} and {getattr(theirs, 'value', theirs)}."
            )
    if maps.latents.shape[1:] != other.latents.shape[1:]:
        raise ValueError(f"Both maps must have latents of one shape; got {tuple(maps.latents.shape[1:])} and {tuple(other.latents.shape[1:])}.")
    first = max(maps.skipped, other.skipped)
    maps, other = maps.skip(first), other.skip(first)
    if not torch.allclose(maps.sigmas, other.sigmas, rtol=1e-4):
        raise ValueError("Both maps must have the same noise levels; these were made with different schedulers or sigmas.")
    return maps, other
