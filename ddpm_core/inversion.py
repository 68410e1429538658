"""Edit-friendly inversion (paper section 3.2, algorithm 1), with many timesteps in one call of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .maps import NoiseMaps, check_finite
from .steps import Process, Solver, schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
_OUT_OF_MEMORY = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


def state_dtype(device: torch.device | str) -> torch.dtype:
    """The precision of the state between steps: float64, or float32 on a device that has no float64 (MPS)."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def call(denoise: Denoise, x: Tensor, sigma: Tensor) -> Tensor:
    """The model's prediction in the dtype of the state, checked: x (N, C, *S), sigma (N,) -> (N, C, *S)."""
    x0_hat = denoise(x, sigma)
    if x0_hat.shape != x.shape:
        raise ValueError(f"denoise must return the shape of x, {tuple(x.shape)}; got {tuple(x0_hat.shape)}.")
    check_finite(x0_hat, f"the model's prediction at sigma {sigma.max().item():.4g} (a float16 overflow? try float32 or bfloat16)")
    return x0_hat.to(x.dtype)


def item_noise(shape: Sequence[int], seed: int, count: int) -> Tensor:
    """Standard normal noise (count, B, C, *S), float32 on the CPU; item i of the batch has a generator of its own, seed + i."""
    batch, *item = shape
    generators = [torch.Generator().manual_seed((seed + i) % 2**64) for i in range(batch)]
    return torch.stack([torch.randn(count, *item, generator=g) for g in generators], dim=1)


def auxiliary_path(x0: Tensor, sigmas: Sequence[float] | Tensor, *, process: Process = Process.VE, seed: int = 0, skip: int = 0) -> Tensor:
    """Noisy versions of x_0 with independent noise at every level (eq. 6): x_t = alpha x_0 + sigma e_t.

    x0 (B, C, *S); returns (S+1-skip, B, C, *S) on the CPU in x0's dtype. The last one is x_0 itself, whatever the last sigma.
    The noise of a level does not depend on ``skip``.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
    x0 = x0.cpu()
    noise = item_noise(x0.shape, seed, len(levels) - 1)[skip:].to(x0.dtype)
    levels = levels[skip:-1].view(-1, *[1] * x0.dim()).to(x0.dtype)
    return torch.cat((process.alpha(levels) * x0 + levels * noise, x0[None]))


def invert(
    denoise: Denoise,
    x0: Tensor,
    sigmas: Sequence[float] | Tensor,
    *,
    skip: int = 0,
    eta: float = 1.0,
    solver: Solver = Solver.FIRST_ORDER,
    process: Process = Process.VE,
    seed: int = 0,
    chunk: int = 8,
    mask: Tensor | None = None,
    path: Tensor | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> NoiseMaps:
    """The noise maps of a clean latent (eq. 5 on the path of eq. 6), on the CPU.

    x0        (B, C, *S); its device is where the model runs, and float64 keeps the maps in float64 (else float32)
    sigmas    (S+1,) decreasing; the last may be 0
    skip      steps left out at the noisy end: they cost no evaluation
    chunk     timesteps in one call of the model: denoise gets (chunk B, C, *S), timestep by timestep; halved when memory runs out
    path      (S+1-skip, B, C, *S) a path of the caller's own instead of ``auxiliary_path``; its last one must be x_0
    callback  called after each timestep with (index, prediction, latent), each (B, C, *S)

    Raises ValueError for inputs that do not fit, or a prediction that is not finite.
    """
    if x0.dim() not in (4, 5):
        raise ValueError(f"x0 must have shape (B, C, H, W) or (B, C, T, H, W); got {tuple(x0.shape)}.")
    count = len(sigmas) - 1
    if not 0 <= skip < count:
        raise ValueError(f"skip must lie in [0, {count - 1}] for {count} steps; got {skip}.")
    if chunk < 1:
        raise ValueError(f"chunk must be 1 or more timesteps a call; got {chunk}.")
    check_finite(x0, "x0")
    sigmas = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
    schedule(sigmas, eta=eta, solver=solver, process=process)  # refuses what does not fit before any work
    steps = schedule(sigmas[skip:], eta=eta, solver=solver, process=process)
    kept = torch.float64 if x0.dtype == torch.float64 else torch.float32
    if path is None:
        path = auxiliary_path(x0.to(kept), sigmas, process=process, seed=seed, skip=skip)
    if tuple(path.shape) != (len(steps) + 1, *x0.shape):
        raise ValueError(f"path must have shape {(len(steps) + 1, *x0.shape)} for {len(steps)} steps from skip on; got {tuple(path.shape)}.")
    path = path.to("cpu", kept)
    predictions = _predict(denoise, path[:-1], sigmas[skip:-1], x0.device, chunk, callback)
    wide = path.double()
    befores = [None, *predictions[:-1]]
    residuals = [x_next - step.mean(x, p.double(), b) for step, x, x_next, p, b in zip(steps, wide, wide[1:], predictions, befores)]
    mask = None if mask is None else mask.to("cpu", kept)
    return NoiseMaps(sigmas[skip:], path, torch.stack(residuals).to(kept), predictions, eta, solver, process, seed, skip, mask)


def _predict(denoise: Denoise, latents: Tensor, sigmas: Tensor, device, chunk: int, callback) -> Tensor:
    """x0_hat of every latent (S, B, C, *S) at its sigma (S,), ``chunk`` timesteps a call."""
    state, batch = state_dtype(device), latents.shape[1]
    predictions = torch.empty_like(latents)
    done = 0
    while done < len(latents):
        part = slice(done, done + chunk)
        x = latents[part].flatten(0, 1).to(device, state)  # (chunk B, C, *S)
        sigma = sigmas[part].repeat_interleave(batch).to(device, state)
        try:
            x0_hat = call(denoise, x, sigma)
        except _OUT_OF_MEMORY:
            if chunk == 1:
                raise
            chunk = (chunk + 1) // 2
            if x.is_cuda:
                torch.cuda.empty_cache()
            continue
        x0_hat = x0_hat.unflatten(0, (-1, batch))
        predictions[part] = x0_hat.to(predictions)
        if callback is not None:
            for i, prediction in enumerate(x0_hat):
                callback(done + i, prediction, x[i * batch : (i + 1) * batch])
        done += chunk
    return predictions
