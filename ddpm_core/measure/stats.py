"""What noise maps look like as random numbers (arXiv 2304.06140, An Edit Friendly DDPM Noise
Space, section 3.1 and figure 4): native ones are white, edit-friendly ones are not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import BadArgument
from ..maps import NoiseMaps


@dataclass(frozen=True)
class Statistics:
    """Measures of the maps z of the N steps that add noise, in the order of execution; native
    maps have variance 1 and correlation 0."""

    times: Tensor  # (N,), per cent of the schedule's steps, 100 is the noisy end
    variance: Tensor  # (N,), of all values of a step
    correlation: Tensor  # (N-1,), of each step's values with those of the step after it


def statistics(maps: NoiseMaps) -> Statistics:
    """The measures over all items and cells together. Raises BadArgument where fewer than two
    steps add noise (eta 0)."""
    ups = torch.tensor([step.up for step in maps.steps], dtype=torch.float64)
    noisy = ups > 0
    if noisy.sum() < 2:
        got = f"got {int(noisy.sum())} of {len(ups)} steps, eta {maps.eta:g}"
        raise BadArgument("maps", f"Statistics need maps with noise in two steps or more; {got}.")
    z = maps.noise.cpu().flatten(1)[noisy] / ups[noisy, None]  # (N, B C *S)
    centred = z - z.mean(1, keepdim=True)
    variance = centred.square().mean(1)
    correlation = (centred[:-1] * centred[1:]).mean(1) / (variance[:-1] * variance[1:]).sqrt()
    return Statistics(torch.tensor(maps.times, dtype=torch.float64)[noisy], variance, correlation)


def angles(vectors: Tensor) -> Tensor:
    """Angles in degrees [0, 180] between each vector and the next: vectors (T, B, D) -> (T-1,
    B)."""
    cosine = torch.nn.functional.cosine_similarity(vectors[:-1], vectors[1:], dim=-1)
    return torch.rad2deg(cosine.clamp(-1, 1).acos())
