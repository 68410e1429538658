"""How predictions under several prompts become one."""

from __future__ import annotations

from torch import Tensor


def classifier_free(negative: Tensor, positive: Tensor, scale: float) -> Tensor:
    """u + w (t - u): eq. 6 of arXiv 2207.12598, Classifier-Free Diffusion Guidance.

    Linear, so the same for eps, v and x0_hat at one x.
    """
    return negative + scale * (positive - negative)
