"""Edit-friendly inversion (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 3.2 and
algorithm 1), with many timesteps in one call of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import BadArgument, check_latent
from ..denoise import Callback, Denoise, predict_path
from ..maps import NoiseMaps
from ..noise import path_noise
from ..plan import Plan


def auxiliary_path(x0: Tensor, plan: Plan) -> Tensor:
    """Noisy versions of x_0 with independent noise at every level (eq. 6): x_t = alpha x_0 + sigma
    e_t.

    x0 (B, C, *S); returns (R+1, B, C, *S) for the R steps from skip on, on the CPU in x0's dtype.
    The last one is x_0 itself, whatever the last sigma. The noise of a level does not depend on
    ``skip``.
    """
    x0 = x0.cpu()
    noise = path_noise(x0.shape, plan.seed, len(plan.sigmas) - 1)[plan.skip :].to(x0.dtype)
    levels = plan.levels[plan.skip : -1].view(-1, *[1] * x0.dim()).to(x0.dtype)
    return torch.cat((plan.process.alpha(levels) * x0 + levels * noise, x0[None]))


def invert(
    denoise: Denoise,
    x0: Tensor,
    plan: Plan,
    *,
    chunk: int = 8,
    mask: Tensor | None = None,
    path: Tensor | None = None,
    callback: Callback | None = None,
) -> NoiseMaps:
    """The noise maps of a clean latent (eq. 5 on the path of eq. 6), on the CPU.

    x0        (B, C, *S); its device is where the model runs; float64 keeps latents and predictions
              in float64 (else float32)
    chunk     timesteps in one call of the model: denoise gets (chunk B, C, *S), timestep by
              timestep; halved when memory runs out
    mask      (1 or B, 1, *S) in [0, 1], kept in the maps: 1 where an edit may change the latent
    path      (R+1, B, C, *S) a path of the caller's own instead of ``auxiliary_path``, ending at
              x_0
    callback  called after each timestep with (index, prediction, latent), each (B, C, *S)

    Raises BadArgument for inputs that do not fit, or a prediction that is not finite.
    """
    check_latent(x0)
    if chunk < 1:
        raise BadArgument("chunk", f"chunk must be 1 or more timesteps a call; got {chunk}.")
    kept = torch.float64 if x0.dtype == torch.float64 else torch.float32
    path = auxiliary_path(x0.to(kept), plan) if path is None else path.to("cpu", kept)
    _check_path(path, x0, len(plan.steps))
    sigmas = plan.levels[plan.skip :]
    predictions = predict_path(denoise, path[:-1], sigmas[:-1], x0.device, chunk, callback)
    held = predictions.to(kept, copy=True)
    # Written over from the last step to the first, which no longer needs what it replaces: maps are
    # large.
    residuals = predictions
    for i, step in reversed(list(enumerate(plan.steps))):
        before = predictions[i - 1] if i else None
        residuals[i] = path[i + 1].double() - step.mean(path[i].double(), predictions[i], before)
    mask = None if mask is None else mask.to("cpu", kept)
    settings = {"eta": plan.eta, "solver": plan.solver, "process": plan.process, "seed": plan.seed}
    rest = {"skipped": plan.skip, "guidance": plan.guidance, "mask": mask}
    return NoiseMaps(sigmas, path, residuals, held, **settings, **rest)


def _check_path(path: Tensor, x0: Tensor, steps: int) -> None:
    expected = (steps + 1, *x0.shape)
    if tuple(path.shape) != expected:
        rule = f"path must have shape {expected} for {steps} steps from skip on"
        raise BadArgument("path", f"{rule}; got {tuple(path.shape)}.")
    x0 = x0.to(path)
    if not torch.equal(path[-1], x0):
        worst = (path[-1] - x0).abs().max().item()
        raise BadArgument("path", f"path must end at x0; its last latent differs by up to {worst:.4g}.")
