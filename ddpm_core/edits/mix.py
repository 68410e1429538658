"""Two inversions blended (maps of arXiv 2304.06140, An Edit Friendly DDPM Noise Space)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import BadArgument, check_mask
from ..maps import NoiseMaps
from .parts import blend, noise_at, own_at, per_level, put_together
from .window import steps_between


def mix(
    maps: NoiseMaps,
    other: NoiseMaps,
    amount: float,
    *,
    start: float = 100,
    end: float = 0,
    mask: Tensor | None = None,
) -> NoiseMaps:
    """Blend two inversions of one model and schedule: ``amount`` of ``other`` in the steps from
    ``start`` down to ``end``, inside ``mask``.

    amount      in [0, 1]: 0 is ``maps``, 1 is ``other``
    start, end  t in per cent of the schedule's steps, 100 is the noisy end
    mask        (1 or B, 1, *S) in [0, 1], default everywhere

    With the weights w of a step, inside the mask, all parts are blended as (1 - w) ours + w theirs;
    the noise keeps its level, also where that of another seed would partly cancel. Steps that one
    of them skipped are skipped. Raises BadArgument for maps that do not belong together.
    """
    if not 0 <= amount <= 1:
        raise BadArgument("amount", f"The amount of the other maps must lie in [0, 1]; got {amount:g}.")
    maps, other = same_start(maps, other)
    weights = per_level(maps, [amount if inside else 0.0 for inside in steps_between(maps, start, end)])
    if mask is not None:
        check_mask(mask, maps.latents.shape[1:])
        weights = weights * mask.to(weights)

    def level(i: int) -> tuple[Tensor, Tensor]:
        ours, theirs = noise_at(maps, i), noise_at(other, i)
        noise = blend(ours, 1 - weights[i], theirs, weights[i])
        clean = torch.lerp(maps.latents[i].double() - ours, other.latents[i].double() - theirs, weights[i])
        return clean + noise, noise

    def own(i: int) -> Tensor:
        return torch.lerp(own_at(maps, i), own_at(other, i), weights[i])

    changes = {}
    for name, absent, share in (("mask", 1.0, weights[-1]), ("pull", 0.0, weights[:-1])):
        ours, theirs = getattr(maps, name), getattr(other, name)
        if ours is not None or theirs is not None:
            ours, theirs = (torch.full_like(share, absent) if t is None else t.to(share) for t in (ours, theirs))
            changes[name] = torch.lerp(ours, theirs, share).to(maps.latents)
    predictions = changes["predictions"] = torch.empty_like(maps.predictions)
    for i, weight in enumerate(weights[:-1]):
        predictions[i] = torch.lerp(maps.predictions[i].double(), other.predictions[i].double(), weight)
    for name in ("guidance", "model"):
        if getattr(maps, name) != getattr(other, name):
            changes[name] = None  # of neither
    return put_together(maps, level, own, **changes)


def same_start(maps: NoiseMaps, other: NoiseMaps) -> tuple[NoiseMaps, NoiseMaps]:
    """Both from the later of their first steps on. Raises BadArgument where they do not belong
    together."""
    for name in ("process", "solver", "eta", "total_steps"):
        ours, theirs = (getattr(m, name) for m in (maps, other))
        if ours != theirs:
            got = " and ".join(str(getattr(value, "value", value)) for value in (ours, theirs))
            raise BadArgument("other", f"Both maps must have the same {name.replace('_', ' ')}; got {got}.")
    ours, theirs = (tuple(m.latents.shape[1:]) for m in (maps, other))
    if ours != theirs:
        got = " and ".join(f"{shape[0]} of {' x '.join(map(str, shape[:1:-1]))}" for shape in (ours, theirs))
        raise BadArgument("other", f"Both maps must have one size and batch; got {got} latent cells.")
    first = max(maps.skipped, other.skipped)
    maps, other = maps.skip(first), other.skip(first)
    if not torch.allclose(maps.sigmas, other.sigmas, rtol=1e-4):
        reason = "these were made with different schedulers or sigmas"
        raise BadArgument("other", f"Both maps must have the same noise levels; {reason}.")
    return maps, other
