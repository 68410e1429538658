"""Less of the picture's structure, more freedom for the model (on the maps of arXiv 2304.06140, An
Edit Friendly DDPM Noise Space)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..checks import BadArgument
from ..maps import NoiseMaps
from ..noise import scale_noise
from .parts import blend, noise_at, own_at, per_level, put_together
from .window import steps_between


def scale(maps: NoiseMaps, share: float, *, start: float = 100, end: float = 0, seed: int = 0) -> NoiseMaps:
    """Keep a ``share`` s of the structure in the steps from ``start`` down to ``end``:

        own' = s own,    n' = s n + sqrt(1 - s^2) m at the level of n,    m: noise as native
                         sampling would have walked it

    share       in [0, 1]: 1 is the maps as they are; at 0 nothing leads back to the picture
    start, end  t in per cent of the schedule's steps, 100 is the noisy end
    seed        of m; changes of maps that follow each other should have different ones

    A colour push is scaled with the rest: push afterwards. Predictions are scaled too, since a
    later skip takes the history of a second-order step from them. Raises BadArgument.
    """
    if not 0 <= share <= 1:
        raise BadArgument("share", f"The share of structure that is kept must lie in [0, 1]; got {share:g}.")
    shares = per_level(maps, [share if inside else 1.0 for inside in steps_between(maps, start, end)])
    native = _native_walk(maps, seed)

    def level(i: int) -> tuple[Tensor, Tensor]:
        noise = noise_at(maps, i)
        changed = blend(noise, shares[i], next(native), (1 - shares[i] ** 2).sqrt())
        return maps.latents[i].double() - noise + changed, changed

    def own(i: int) -> Tensor:
        return shares[i] * own_at(maps, i)

    predictions = torch.empty_like(maps.predictions)
    for i, part in enumerate(maps.predictions):
        predictions[i] = shares[i] * part
    changes = {"predictions": predictions}
    if maps.pull is not None:
        changes["pull"] = maps.pull * shares[:-1].to(maps.pull)
    return put_together(maps, level, own, **changes)


def _native_walk(maps: NoiseMaps, seed: int) -> Iterator[Tensor]:
    """Noise (B, C, *S) of every level as sampling would have walked it: n_{t-1} = carry n_t + up
    z_t from the first level on, and 0 in the end."""
    drawn = scale_noise(maps.latents.shape[1:], seed, maps.total_steps, len(maps.residuals))
    noise = maps.steps[0].sigma * drawn[0].to(maps.residuals)
    for step, z in zip(maps.steps[:-1], drawn[1:]):
        yield noise
        noise = step.carry * noise + step.up * z.to(maps.residuals)
    yield noise
    yield torch.zeros_like(noise)
