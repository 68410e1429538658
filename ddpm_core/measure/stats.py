"""What noise maps look like as random numbers (paper section 3.1 and figure 4): native ones are
white, edit-friendly ones are not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..maps import NoiseMaps


@dataclass(frozen=True)
class Statistics:
    """Figures of the maps z of every step that adds noise, in the order of execution; native maps
    have variance 1 and correlation 0."""

    times: Tensor  # (S,), per cent of the schedule's steps, 100 is the noisy end
    variance: Tensor  # (S,), of all values of a step
    correlation: Tensor  # (S-1,), of each step's values with those of the step after it


def statistics(maps: NoiseMaps) -> Statistics:
    """The figures of all items and cells together. Raises ValueError where fewer than two steps add
    noise (eta 0)."""
    noisy = [i for i, step in enumerate(maps.steps) if step.up > 0]
    if len(noisy) < 2:
        raise ValueError(
            f"Statistics need maps with noise in two steps or more; got {len(noisy)} of {len(maps.residuals)} steps, eta {maps.eta:g}."
        )
    ups = torch.tensor([maps.steps[i].up for i in noisy], dtype=torch.float64)
    z = maps.noise[noisy].cpu().flatten(1) / ups[:, None]  # (S, B C *S)
    centred = z - z.mean(1, keepdim=True)
    variance = centred.square().mean(1)
    correlation = (centred[:-1] * centred[1:]).mean(1) / (variance[:-1] * variance[1:]).sqrt()
    total = maps.total_steps
    times = torch.tensor([100 * (total - maps.skipped - i) / total for i in noisy], dtype=torch.float64)
    return Statistics(times, variance, correlation)


def angles(vectors: Tensor) -> Tensor:
    """Angles in degrees [0, 180] between each vector and the next: vectors (S, N, D) -> (S-1, N)."""
    cosine = torch.nn.functional.cosine_similarity(vectors[:-1], vectors[1:], dim=-1)
    return torch.rad2deg(cosine.clamp(-1, 1).acos())
