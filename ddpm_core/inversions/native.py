"""Native noise maps: the path that sampling would have walked (CycleDiffusion: arXiv 2210.05559,
Unifying Diffusion Models' Latent Space)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise import path_noise
from ..plan import Plan
from ..steps import schedule


def native_path(x0: Tensor, plan: Plan) -> Tensor:
    """A path as sampling would have walked it (arXiv 2304.06140, section 2.1; Wu & De la Torre
    2210.05559, section 3.2):

        x_T = alpha_T x_0 + sigma_T e,    x_{t-1} = mean(x_t, x_0) + up z_t ~ q(x_{t-1} | x_t, x_0),
                                          e, z_t ~ N(0, I)

    x0 (B, C, *S); returns (R+1, B, C, *S) for the R steps from skip on, on the CPU in x0's dtype;
    no model is needed. ``invert`` with this path is the native inversion; its maps are nearly
    white. The steps are of first order.
    """
    levels = plan.levels
    x0 = x0.cpu()
    clean = x0.double()
    noise = path_noise(x0.shape, plan.seed, len(levels) - 1).double()
    path = [plan.process.alpha(levels[0]) * clean + levels[0] * noise[0]]
    for step, z in zip(schedule(levels, eta=plan.eta, process=plan.process)[:-1], noise[1:]):
        path.append(step.mean(path[-1], clean, None) + step.up * z)
    return torch.cat((torch.stack(path[plan.skip :]).to(x0.dtype), x0[None]))
