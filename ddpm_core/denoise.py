"""The one kind of model that the core knows, ``denoise(x, sigma) -> x0_hat``, and how it is
called."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .checks import BadArgument, check_finite

Denoise = Callable[[Tensor, Tensor], Tensor]  # x (N, C, *S), sigma (N,) -> x0_hat (N, C, *S)
Callback = Callable[[int, Tensor, Tensor], None]  # (index of the step, prediction, latent), each (B, C, *S)


def state_device(device: torch.device | str) -> torch.device:
    """Where the state between steps lives, always in float64: the model's device, or the CPU
    where the device may have no float64 (MPS, DirectML, XPU)."""
    device = torch.device(device)
    return device if device.type in ("cpu", "cuda") else torch.device("cpu")


def call(denoise: Denoise, x: Tensor, sigma: Tensor, device: torch.device | str) -> Tensor:
    """The model's prediction for a state, as a state, checked: x (N, C, *S) and sigma (N,),
    float64 -> (N, C, *S), float64.

    The model gets float64 where the state lives on its own device, and float32 elsewhere; it
    casts further by itself.
    """
    dtype = x.dtype if x.device.type == torch.device(device).type else torch.float32
    x0_hat = denoise(x.to(device, dtype, copy=True), sigma.to(device, dtype))  # it may change its input
    if x0_hat.shape != x.shape:
        rule = f"denoise must return the shape of x, {tuple(x.shape)}"
        raise BadArgument("denoise", f"{rule}; got {tuple(x0_hat.shape)}.")
    where = f"the model's prediction at sigma {sigma.max().item():.4g} (a float16 overflow? try float32 or bfloat16)"
    check_finite(x0_hat, "denoise", where)
    return x0_hat.to(x.device).to(x.dtype)


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error is a device's lack of memory; some devices say so in words only."""
    known = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
    words = (
        "out of memory",
        "not enough memory",
        "not enough GPU video memory",
        "can't allocate memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
    )
    return isinstance(error, known) or any(word in str(error) for word in words)


def call_if_it_fits(denoise: Denoise, x: Tensor, sigma: Tensor, device, *, divisible: bool) -> Tensor | None:
    """``call``; None where memory ran out and fewer can be asked at once."""
    try:
        return call(denoise, x, sigma, device)
    except RuntimeError as error:
        if not divisible or not ran_out_of_memory(error):
            raise
    if x.is_cuda:  # here the error is gone, and with its traceback what the model had made until then
        torch.cuda.empty_cache()
    return None


def predict_path(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, device, chunk: int, callback: Callback | None
) -> Tensor:
    """x0_hat of every latent (R, B, C, *S) at its sigma (R,), ``chunk`` timesteps a call;
    float64 on the CPU."""
    batch = latents.shape[1]
    predictions = torch.empty_like(latents, dtype=torch.float64)
    done = 0
    while done < len(latents):
        part = slice(done, done + chunk)
        x = latents[part].flatten(0, 1).double().to(state_device(device))  # (chunk B, C, *S)
        sigma = sigmas[part].repeat_interleave(batch).to(x.device)
        x0_hat = call_if_it_fits(denoise, x, sigma, device, divisible=len(x) > batch)
        if x0_hat is None:
            chunk = (len(x) // batch + 1) // 2
            continue
        x0_hat = x0_hat.unflatten(0, (-1, batch))
        predictions[part] = x0_hat.cpu()
        if callback is not None:
            for i, prediction in enumerate(x0_hat):
                callback(done + i, prediction, x[i * batch : (i + 1) * batch])
        done += chunk
    return predictions
