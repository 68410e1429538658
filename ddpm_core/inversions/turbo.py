"""Edit-friendly inversion for few-step models (TurboEdit: arXiv 2408.00735, TurboEdit: Text-Based
Image Editing Using Few-Step Diffusion Models)."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..checks import BadArgument
from ..maps import NoiseMaps
from ..noise import path_noise
from ..plan import Plan

CAP = 15.5  # of the last residual's norm, for the 4 x 64 x 64 values of 512 pixels
CAP_VALUES = 4 * 64 * 64


def shifted_path(x0: Tensor, plan: Plan) -> Tensor:
    """A path with the noise of the next level in each latent, as few-step models leave it
    (TurboEdit, section 4.1):

        x_i = size(sigma_i) / size(n_i) (alpha(n_i) x_0 + n_i e_i),    n_i = sigma_{i+1}

    where size is what a model divides by before it looks, so that it sees a picture that is less
    noisy than it is told. A last level of 0 leaves x_0 alone.

    x0 (B, C, *S); returns (R+1, B, C, *S) for the R steps from skip on, on the CPU in x0's dtype;
    e is the noise of ``auxiliary_path``.
    """
    x0 = x0.cpu()
    noise = path_noise(x0.shape, plan.seed, len(plan.sigmas) - 1)[plan.skip :].to(x0.dtype)
    path = []
    for step, e in zip(plan.steps, noise):
        size = plan.process.size(step.sigma) / plan.process.size(step.sigma_next)
        path.append(size * (step.alpha_next * x0 + step.sigma_next * e))
    return torch.stack([*path, x0])


def cap_last(maps: NoiseMaps, cap: float = CAP) -> NoiseMaps:
    """Maps whose last residual r has a norm of at most ``cap``, for each picture by itself
    (TurboEdit, section 4.2):

        r' = min(1, cap sqrt(C prod S / 16384) / |r|_2) r

    What is cut off was there to give the picture back exactly, and shows in an edit as traces of
    the source. 0 leaves the maps as they are. Raises BadArgument for less.
    """
    if not 0 <= cap < math.inf:
        raise BadArgument("cap", f"The cap of the last step must be 0 (none) or more; got {cap:g}.")
    if not cap:
        return maps
    last = maps.residuals[-1]
    norm = last.flatten(1).norm(dim=1).view(-1, *[1] * (last.dim() - 1))
    most = cap * math.sqrt(last[0].numel() / CAP_VALUES)
    residuals = maps.residuals.clone()
    residuals[-1] *= (most / norm.clamp(min=1e-30)).clamp(max=1.0)
    return dataclasses.replace(maps, residuals=residuals)
