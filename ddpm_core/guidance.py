"""How predictions under several prompts become one."""

from __future__ import annotations

from torch import Tensor


def classifier_free(negative: Tensor, positive: Tensor, scale: float) -> Tensor:
    """u + w (t - u) (Ho & Salimans 2207.12598, eq. 6); linear, so the same for eps, v and x0_hat at
    one x."""
    return negative + scale * (positive - negative)
