"""ComfyUI's masks as masks of latents."""

from __future__ import annotations

import comfy.utils
import torch
from torch import Tensor

from ...ddpm_core.checks import check_finite

MASK_REMEDY = "Look at what makes the mask."


def latent_mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask of any size as (B, 1, *S) in [0, 1] for latents of shape (B, C, *S): each cell gets
    the mean of its pixels, so that a thin mask is not lost.

    mask: (H, W), (N, H, W) or (N, 1, H, W), on any device; for a video latent the N are frames.
    Returns float32 on the CPU. Raises NotFinite.
    """
    check_finite(mask, "mask")
    batch, _, *size = shape
    mask = mask.float().reshape(-1, 1, *mask.shape[-2:])
    if len(size) == 3:
        mask = mask.movedim(0, 1)[None]  # (1, 1, F, H, W)
    mask = torch.nn.functional.interpolate(mask, size=size, mode="area")
    return comfy.utils.repeat_to_batch_size(mask, batch).clamp(0, 1).contiguous().cpu()


def noise_mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A noise mask of any size as (B, 1, *S) in [0, 1] for latents of shape (B, C, *S), as
    ComfyUI's own samplers read it; float32 on the CPU, where the maps lie. Raises NotFinite."""
    check_finite(mask, "mask")
    return comfy.utils.reshape_mask(mask.float(), shape)[:, :1].clamp(0, 1).contiguous().cpu()


def mask_problem(mask: Tensor, shape: tuple[int, ...]) -> str | None:
    """What a person should know about a mask for latents of shape (B, C, *S): that it allows no
    change, has other proportions than the picture, by more than a cell, or goes to every video of a
    batch."""
    if not mask.any():
        return "the mask is empty (0 everywhere), so nothing changes: draw the region that may change."
    (height, width), (rows, columns) = mask.shape[-2:], shape[-2:]
    if abs(width * rows / height - columns) > 1 and abs(height * columns / width - rows) > 1:
        return f"the mask ({width} x {height} pixels) has another shape than the picture: it is stretched to fit."
    if len(shape) == 5 and shape[0] > 1 and mask.dim() > 2 and len(mask) > 1:
        return f"its {len(mask)} frames go to each of the {shape[0]} videos: edit videos with own masks one by one."
    return None


def both_masks(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Where both allow a change; None allows it everywhere."""
    if one is None or other is None:
        return other if one is None else one
    return torch.minimum(one, other.to(one))
