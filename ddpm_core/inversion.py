"""Edit-friendly inversion (paper section 3.2, algorithm 1), with many timesteps in one call of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .maps import NoiseMaps, check_finite
from .steps import Process, Solver, schedule

Denoise = Callable[[Tensor, Tensor], Tensor]


def state_device(device: torch.device | str) -> torch.device:
    """Where the state between steps lives, always in float64: the model's device, or the CPU where the device may have no float64 (MPS, DirectML, XPU)."""
    device = torch.device(device)
    return device if device.type in ("cpu", "cuda") else torch.device("cpu")


def call(denoise: Denoise, x: Tensor, sigma: Tensor, device: torch.device | str) -> Tensor:
    """The model's prediction for a state, as a state, checked: x (N, C, *S) and sigma (N,), float64 -> (N, C, *S), float64.

    The model gets float64 where the state lives on its own device, and float32 elsewhere; it casts further by itself.
    """
    at_home = x.device.type == torch.device(device).type
    x0_hat = denoise(x, sigma) if at_home else denoise(x.to(device, torch.float32), sigma.to(device, torch.float32))
    if x0_hat.shape != x.shape:
        raise ValueError(f"denoise must return the shape of x, {tuple(x.shape)}; got {tuple(x0_hat.shape)}.")
    check_finite(x0_hat, f"the model's prediction at sigma {sigma.max().item():.4g} (a float16 overflow? try float32 or bfloat16)")
    return x0_hat.to(x.device).to(x.dtype)


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error is a device's lack of memory; some devices say so in words only."""
    known = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
    words = ("out of memory", "not enough memory", "not enough GPU video memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, known) or any(word in str(error) for word in words)


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

    x0        (B, C, *S); its device is where the model runs; float64 keeps latents and predictions in float64 (else float32)
    sigmas    (S+1,) decreasing; the last may be 0
    skip      steps left out at the noisy end: they cost no evaluation
    chunk     timesteps in one call of the model: denoise gets (chunk B, C, *S), timestep by timestep; halved when memory runs out
    path      (S+1-skip, B, C, *S) a path of the caller's own instead of ``auxiliary_path``, ending at x_0
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
    if not torch.equal(path[-1], x0.to("cpu", kept)):
        raise ValueError(f"path must end at x0; its last latent differs by up to {(path[-1] - x0.to(path)).abs().max().item():.4g}.")
    predictions = _predict(denoise, path[:-1], sigmas[skip:-1], x0.device, chunk, callback)
    held = predictions.to(kept, copy=True)
    residuals = predictions  # written over from the last step to the first, which no longer needs what it replaces: maps are large
    for i, step in reversed(list(enumerate(steps))):
        before = predictions[i - 1] if i else None
        residuals[i] = path[i + 1].double() - step.mean(path[i].double(), predictions[i], before)
    mask = None if mask is None else mask.to("cpu", kept)
    return NoiseMaps(sigmas[skip:], path, residuals, held, eta, solver, process, seed, skip, mask)


def _predict(denoise: Denoise, latents: Tensor, sigmas: Tensor, device, chunk: int, callback) -> Tensor:
    """x0_hat of every latent (S, B, C, *S) at its sigma (S,), ``chunk`` timesteps a call; float64 on the CPU."""
    batch = latents.shape[1]
    predictions = torch.empty_like(latents, dtype=torch.float64)
    done = 0
    while done < len(latents):
        part = slice(done, done + chunk)
        x = latents[part].flatten(0, 1).double().to(state_device(device))  # (chunk B, C, *S)
        sigma = sigmas[part].repeat_interleave(batch).to(x.device)
        try:
            x0_hat = call(denoise, x, sigma, device)
        except RuntimeError as error:
            if len(x) == batch or not ran_out_of_memory(error):
                raise
            x0_hat = None
        if x0_hat is None:  # here the error is gone, and with its traceback what the model had made until then
            chunk = (len(x) // batch + 1) // 2
            if x.is_cuda:
                torch.cuda.empty_cache()
            continue
        x0_hat = x0_hat.unflatten(0, (-1, batch))
        predictions[part] = x0_hat.cpu()
        if callback is not None:
            for i, prediction in enumerate(x0_hat):
                callback(done + i, prediction, x[i * batch : (i + 1) * batch])
        done += chunk
    return predictions
