"""Sampling along stored noise maps: the same prompt gives the picture back, another prompt is the
edit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .denoise import Callback, Denoise, call, state_device
from .maps import NoiseMaps


def replay(
    denoise: Denoise,
    maps: NoiseMaps,
    *,
    skip: int | None = None,
    mask: Tensor | None = None,
    local: Callable[[int], Tensor | None] | None = None,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Tensor:
    """Start at latents[skip], then x_next = mean(x, x0_hat) + residual with x0_hat = denoise(x)
    (arXiv 2304.06140, section 3.2, eq. 3 with fixed z).

    Maps with a colour push subtract pull x0_hat besides, so that the push is s B (M - x0_hat) with
    the prediction of this very run. With a mask m, every step ends with x_next <- source + m
    (x_next - source), where source is the path's own latent.

    maps      what ``invert`` made; ``skip`` counts steps of the whole schedule (default: where the
              maps start)
    mask      (1 or B, 1, *S) in [0, 1], default the maps' own: where it is 0 the source is kept
              exactly
    local     a mask of every step besides, asked for after its prediction with the step's index:
              what a local blend has found until then; None for none
    device    where the model runs
    callback  called after each step with (index, prediction, latent), each (B, C, *S)

    Returns the clean latent (B, C, *S) on ``device``, in the maps' dtype. Raises BadArgument.
    """
    maps = maps if skip is None else maps.skip(skip)
    mask = maps.mask if mask is None else mask
    home = state_device(device)
    if mask is not None:
        mask = mask.double().to(home)
    x, before = maps.latents[0].double().to(home), None
    for i, (step, residual, source) in enumerate(zip(maps.steps, maps.residuals, maps.latents[1:])):
        x0_hat = call(denoise, x, x.new_full((len(x),), step.sigma), device)
        x = step.mean(x, x0_hat, before) + residual.to(home)
        if maps.pull is not None:
            x = x - maps.pull[i].to(x) * x0_hat
        for where in (mask, local and local(i)):
            if where is not None:
                at_home = source.double().to(home)
                x = at_home + where.to(home) * (x - at_home)
        before = x0_hat
        if callback is not None:
            callback(i, x0_hat, x)
    return x.to(maps.latents.dtype).to(device)
