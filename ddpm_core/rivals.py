"""What edit-friendly maps are measured against, as noise maps for the same replay: native inversion, DDIM inversion, SDEdit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .inversion import Denoise, auxiliary_path, call, invert, item_noise, state_device
from .maps import NoiseMaps, check_finite
from .steps import Process, Solver, schedule

INVERSIONS = ("edit-friendly", "native", "ddim", "sdedit")


def invert_by(
    method: str,
    denoise: Denoise | None,
    x0: Tensor,
    sigmas: Sequence[float] | Tensor,
    *,
    skip: int = 0,
    eta: float = 1.0,
    solver: Solver = Solver.FIRST_ORDER,
    process: Process = Process.VE,
    seed: int = 0,
    chunk: int = 8,
    corrections: int = 0,
    mask: Tensor | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> NoiseMaps:
    """The noise maps of a clean latent by one of ``INVERSIONS``; arguments as for ``invert``.

    "ddim" has eta 0 and first order whatever is said, draws nothing and takes one step a call; ``corrections`` are its own. "sdedit" asks no model (None
    will do) and is of first order.
    """
    if method not in INVERSIONS:
        raise ValueError(f"The inversion must be one of {', '.join(INVERSIONS)}; got {method!r}.")
    if method == "sdedit":
        maps = sdedit(x0, sigmas, skip=skip, eta=eta, process=process, seed=seed)
    elif method == "ddim":
        maps = invert_ddim(denoise, x0, sigmas, skip=skip, process=process, corrections=corrections, callback=callback)
    else:
        path = native_path(x0, sigmas, eta=eta, process=process, seed=seed, skip=skip) if method == "native" else None
        options = {"skip": skip, "eta": eta, "solver": solver, "process": process, "seed": seed, "chunk": chunk}
        return invert(denoise, x0, sigmas, **options, mask=mask, path=path, callback=callback)
    return maps if mask is None else dataclasses.replace(maps, mask=mask.to(maps.latents))


def native_path(x0: Tensor, sigmas: Sequence[float] | Tensor, *, eta: float = 1.0, process: Process = Process.VE, seed: int = 0, skip: int = 0) -> Tensor:
    """A path as sampling would have walked it: x_T from noise, then x_{t-1} ~ q(x_{t-1} | x_t, x_0) (paper section 2.1).

    This is what CycleDiffusion does (Wu & De la Torre 2210.05559, section 3.2). ``invert`` with this ``path`` is the native inversion; its maps
    are nearly white. Arguments and result as for ``auxiliary_path``; no model is needed.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
    x0 = x0.cpu()
    clean = x0.double()
    noise = item_noise(x0.shape, seed, len(levels) - 1).double()
    path = [process.alpha(levels[0]) * clean + levels[0] * noise[0]]
    for step, z in zip(schedule(levels, eta=eta, process=process)[:-1], noise[1:]):
        path.append(step.mean(path[-1], clean, None) + step.up * z)
    return torch.cat((torch.stack(path[skip:]).to(x0.dtype), x0[None]))


def sdedit(x0: Tensor, sigmas: Sequence[float] | Tensor, *, skip: int, eta: float = 1.0, process: Process = Process.VE, seed: int = 0) -> NoiseMaps:
    """SDEdit (Meng et al. 2108.01073) as noise maps: the picture noised to the level after ``skip`` steps, then native noise. No model is needed.

    x0 (B, C, *S), for a colour edit the encoding of the painted picture; strength is 1 - skip / steps. A replay under the same prompt does not
    give the picture back. Predictions are x_0 itself.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
    steps = schedule(levels[skip:], eta=eta, process=process)
    path = auxiliary_path(x0.float(), levels, process=process, seed=seed, skip=skip)
    native = item_noise(x0.shape, seed, 2 * len(levels))[-len(steps) :].double()  # apart from the path's own
    ups = torch.tensor([step.up for step in steps], dtype=torch.float64).view(-1, *[1] * x0.dim())
    predictions = path[-1:].expand(len(steps), *x0.shape).clone()
    return NoiseMaps(levels[skip:], path, ups * native, predictions, eta, process=process, seed=seed, skipped=skip)


def invert_ddim(
    denoise: Denoise,
    x0: Tensor,
    sigmas: Sequence[float] | Tensor,
    *,
    skip: int = 0,
    process: Process = Process.VE,
    corrections: int = 0,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> NoiseMaps:
    """DDIM inversion (Song et al. 2010.02502, section 4.3) as noise maps with eta 0 and no residuals: a replay is plain DDIM sampling from x_T.

    x0 (B, C, *S), on the model's device. Every step asks the model at the level that it goes to, but for the latent that it comes from; ``corrections``
    asks again at the latent found, as often (fixed-point iteration, Pan et al. 2309.04907). So S (1 + corrections) calls, one after the other, and the
    picture comes back only as well as the guess was. ``callback`` as for ``invert``, in the order of the work: from the picture to the noise.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
    steps = schedule(levels[skip:], eta=0.0, process=process)
    check_finite(x0, "x0")
    home = state_device(x0.device)
    x = x0.double().to(home)
    latents, predictions = [x], []
    for i, step in enumerate(reversed(steps)):
        guess = _scale(step.sigma, process) / _scale(step.sigma_next, process) * x
        for _ in range(1 + corrections):
            x0_hat = call(denoise, guess, x.new_full((len(x),), step.sigma), x0.device)
            eps_hat = (guess - step.alpha * x0_hat) / step.sigma
            guess = step.alpha / step.alpha_next * (x - step.sigma_next * eps_hat) + step.sigma * eps_hat
        x = guess
        latents.append(x)
        predictions.append((x - step.sigma * eps_hat) / step.alpha if step.alpha else x0_hat)
        if callback is not None:
            callback(i, x0_hat, x)
    path, seen = (torch.stack(tensors[::-1]).float().cpu() for tensors in (latents, predictions))
    return NoiseMaps(levels[skip:], path, torch.zeros_like(path[1:], dtype=torch.float64), seen, 0.0, process=process, skipped=skip)


def _scale(sigma: float, process: Process) -> float:
    """The size of a noisy latent: what a model divides by before it looks."""
    return 1.0 if process is Process.FLOW else math.sqrt(1 + sigma**2)
