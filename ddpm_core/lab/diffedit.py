"""DiffEdit's own mask, for comparison (arXiv 2210.11427, DiffEdit: Diffusion-based semantic image
editing with mask guidance)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..denoise import predict_path
from ..maps import NoiseMaps
from ..noise import path_noise

if TYPE_CHECKING:
    from ..models.stable_diffusion import Pipeline, Prompt

NOISES, STRENGTH, RATIO = 10, 0.5, 3.0  # the paper's numbers of noises and strength; of the published code: 3 means


def diffedit_mask(
    model: Pipeline, maps: NoiseMaps, source: Prompt, target: Prompt, *, device: torch.device | str = "cpu"
) -> Tensor:
    """Where two prompts differ on the picture under several noises of one level: (B, 1, h, w), 0 or
    1 (section 3.2, step 1).

        d = mean over the noises and channels of |t(x_0 + sigma e) - s(x_0 + sigma e)|,
        M = [min(d, 3 mean d) / (3 mean d) > 1/2]

    sigma is the level at half of the schedule. The guidance would only scale d, and is 1. 20
    samples a picture.
    """
    total = maps.total_steps
    sigma = model.sigmas(total)[total - int(STRENGTH * total)]
    noisy = maps.latents[-1].cpu() + sigma * path_noise(maps.latents.shape[1:], maps.seed, NOISES).double()
    levels = sigma.expand(NOISES)
    ours, theirs = (
        predict_path(model.denoiser(prompt, guidance=1.0), noisy, levels, device, NOISES, None)
        for prompt in (source, target)
    )
    return threshold((theirs - ours).abs().mean((0, 2))[:, None]).float()


def threshold(amount: Tensor) -> Tensor:
    """1 where more than half of ``RATIO`` times the picture's mean: (B, 1, h, w)."""
    most = RATIO * amount.mean((1, 2, 3), keepdim=True)
    return (torch.minimum(amount, most) > 0.5 * most).to(amount)
