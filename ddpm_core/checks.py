"""What the floors above check, and the errors that say what does not fit."""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor


class BadArgument(ValueError):
    """An argument that does not fit: the message has the rule and the value received, ``argument``
    the argument's name."""

    def __init__(self, argument: str, message: str):
        super().__init__(message)
        self.argument = argument


class NotFinite(BadArgument):
    """A tensor holds NaN or infinity."""


def check_finite(tensor: Tensor, argument: str, name: str = "") -> None:
    """Raise NotFinite if a tensor (N, ...) holds NaN or infinity; ``name`` says what it is, if the
    argument's name does not."""
    if math.isfinite(tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32))):
        return  # NaN and infinity stay in a sum; a sum of large values may overflow, so count
    bad = tensor.numel() - sum(int(torch.isfinite(part).sum()) for part in tensor)  # part by part: maps are large
    if bad:
        count = f"{bad} of {tensor.numel()} values are NaN or infinite"
        raise NotFinite(argument, f"{name or argument} must be finite; {count}.")


def check_seed(seed: int) -> None:
    """Raise BadArgument unless a seed is a whole number in [0, 2^64)."""
    try:
        fits = 0 <= operator.index(seed) < 2**64
    except TypeError:
        fits = False
    if not fits:
        raise BadArgument("seed", f"seed must be a whole number in [0, 2^64); got {seed!r}.")


def check_latent(x0: Tensor) -> None:
    """Raise BadArgument unless ``x0`` is a finite batch of latents (B, C, *S)."""
    if x0.dim() not in (4, 5) or not x0.numel():
        rule = "x0 must have shape (B, C, H, W) or (B, C, F, H, W), none of them 0"
        raise BadArgument("x0", f"{rule}; got {tuple(x0.shape)}.")
    check_finite(x0, "x0")


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise BadArgument unless a mask has the shape (1 or B, 1, *S) that goes with latents of
    ``shape`` (B, C, *S)."""
    batch, _, *spatial = shape
    if tuple(mask.shape) not in ((batch, 1, *spatial), (1, 1, *spatial)):
        raise BadArgument("mask", f"mask must have shape {(batch, 1, *spatial)}; got {tuple(mask.shape)}.")
