"""Every draw of noise maps, by name, and its place in the stream.

Item i of a batch has a generator of its own, ``seed + i``, on the CPU, so that a batch equals its
items run alone and every machine draws the same. From one seed come, one after the other (T steps
of the whole schedule, R of them from skip on):

    place              who
    0 .. T             the noisy path: the noise of each level, or of a native walk (``path_noise``)
    T .. T + 2R        what a shift brings into vacated cells: the path's noise, then z
                       (``shift_noise``)
    T + 2R .. T + 3R   what takes the place of structure that is scaled away (``scale_noise``)
    2T + 2 - R ..      SDEdit's own steps (``sdedit_noise``)

Saved workflows depend on these numbers. A draw always takes all numbers before its own too, and
from one call: a shorter ``randn`` is not always the beginning of a longer one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_seed


def path_noise(shape: Sequence[int], seed: int, steps: int) -> Tensor:
    """Noise of the T levels of a whole schedule, for latents of ``shape`` (B, C, *S): (T, B, C,
    *S), float32."""
    return _drawn(shape, seed, steps, steps)


def shift_noise(shape: Sequence[int], seed: int, total: int, rest: int) -> tuple[Tensor, Tensor]:
    """(path, z), each (R, B, C, *S), float32, apart from all that an inversion with the same seed
    has used."""
    return _drawn(shape, seed, total + 2 * rest, 2 * rest).chunk(2)


def scale_noise(shape: Sequence[int], seed: int, total: int, rest: int) -> Tensor:
    """z (R, B, C, *S), float32, apart from what an inversion and a shift with this seed draw."""
    return _drawn(shape, seed, total + 3 * rest, rest)


def sdedit_noise(shape: Sequence[int], seed: int, total: int, rest: int) -> Tensor:
    """z (R, B, C, *S), float32, apart from the path's own."""
    return _drawn(shape, seed, 2 * (total + 1), rest)


def _drawn(shape: Sequence[int], seed: int, count: int, kept: int) -> Tensor:
    """The last ``kept`` of ``count`` standard normal numbers of each cell: (kept, B, C, *S),
    float32 on the CPU."""
    check_seed(seed)
    batch, *item = shape
    drawn = torch.empty(kept, batch, *item)
    for i in range(batch):  # what all of an item take lies in memory once
        generator = torch.Generator().manual_seed((seed + i) % 2**64)
        drawn[:, i] = torch.randn(count, *item, generator=generator)[count - kept :]
    return drawn
