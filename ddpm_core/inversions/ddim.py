"""DDIM inversion as noise maps (arXiv 2010.02502, Denoising Diffusion Implicit Models, section
4.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_latent
from ..denoise import Callback, Denoise, call, state_device
from ..maps import NoiseMaps
from ..plan import Plan
from ..steps import schedule


def invert_ddim(
    denoise: Denoise, x0: Tensor, plan: Plan, *, corrections: int = 0, callback: Callback | None = None
) -> NoiseMaps:
    """Noise maps with eta 0 and no residuals: a replay is plain DDIM sampling from x_T.

    x0 (B, C, *S), on the model's device. The step from sigma_next up to sigma solves the sampler's
    own step for its start,

        x = alpha / alpha_next (x_next - sigma_next eps_hat) + sigma eps_hat,
        eps_hat = (x' - alpha x0_hat(x', sigma)) / sigma,

    with a guess x' of x: the latent that the step comes from, scaled to the size of the level that
    it goes to. Each of ``corrections`` asks again at the x found (fixed-point iteration, Pan et al.
    2309.04907). So T (1 + corrections) calls, one after the other, and the picture comes back only
    as well as the guess was. Eta and solver of the plan are not read; ``callback`` as for
    ``invert``, in the order of the work: from the picture to the noise.
    """
    levels = plan.levels[plan.skip :]
    steps = schedule(levels, eta=0.0, process=plan.process)
    check_latent(x0)
    x = x0.double().to(state_device(x0.device))
    latents, predictions = [x], []
    for i, step in enumerate(reversed(steps)):
        guess = plan.process.size(step.sigma) / plan.process.size(step.sigma_next) * x
        for _ in range(1 + corrections):
            x0_hat = call(denoise, guess, x.new_full((len(x),), step.sigma), x0.device)
            eps_hat = (guess - step.alpha * x0_hat) / step.sigma
            guess = step.alpha / step.alpha_next * (x - step.sigma_next * eps_hat) + step.sigma * eps_hat
        x = guess
        latents.append(x)
        predictions.append((x - step.sigma * eps_hat) / step.alpha if step.alpha else x0_hat)
        if callback is not None:
            callback(i, x0_hat, x)
    path, held = (torch.stack(tensors[::-1]).float().cpu() for tensors in (latents, predictions))
    residuals = torch.zeros_like(path[1:], dtype=torch.float64)
    return NoiseMaps(
        levels, path, residuals, held, 0.0, process=plan.process, skipped=plan.skip, guidance=plan.guidance
    )
