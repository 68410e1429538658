"""Sampling along stored noise maps: the same prompt gives the picture back, another prompt is the
edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .checks import BadArgument
from .denoise import Callback, Denoise, call, call_if_it_fits, state_device
from .maps import NoiseMaps

Local = Callable[[int], Tensor | None]
Several = Callable[[Tensor, Tensor, Sequence[int]], Tensor]  # a denoiser for several edits, and which they are


def replay(
    denoise: Denoise,
    maps: NoiseMaps,
    *,
    skip: int | None = None,
    mask: Tensor | None = None,
    local: Local | None = None,
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
    run = _Run(maps if skip is None else maps.skip(skip), state_device(device), mask, local)
    for i, step in enumerate(run.maps.steps):
        run.advance(i, call(denoise, run.x, run.x.new_full((len(run.x),), step.sigma), device), callback)
    return run.latent(device)


def replay_several(
    denoise: Several,
    edits: Sequence[NoiseMaps],
    *,
    chunk: int = 8,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> list[Tensor]:
    """``replay`` along each of several maps of one schedule, in common calls of the model: at every
    level those that have begun by then.

    denoise   (x, sigma, which) -> x0_hat, as a denoiser, for the edits whose indices are ``which``:
              x has all of the first's batch, then all of the next one's
    edits     their maps: seeds, pictures of one size, masks and skips of their own
    chunk     edits in one call; halved when memory runs out
    callback  called after each step of each edit with (index of its own step, prediction, latent)

    Returns the clean latents, each as ``replay`` gives it, but for what the size of a batch changes
    in a model's last digits. Raises BadArgument.
    """
    if chunk < 1:
        raise BadArgument("chunk", f"chunk must be 1 or more edits a call; got {chunk}.")
    if not edits:
        return []
    runs = [_Run(maps, state_device(device)) for maps in edits]
    first = max(edits, key=lambda maps: len(maps.residuals))
    for maps in edits:
        late = len(first.residuals) - len(maps.residuals)
        if maps.latents.shape[1:] != first.latents.shape[1:] or not torch.equal(maps.sigmas, first.sigmas[late:]):
            reason = "their noise levels or the shapes of their latents differ"
            raise BadArgument("edits", f"Edits in common calls must have maps of one schedule and size; {reason}.")
    for left, step in zip(range(len(first.residuals), 0, -1), first.steps):
        begun = [which for which, maps in enumerate(edits) if len(maps.residuals) >= left]
        while begun:
            group = begun[:chunk]
            x = torch.cat([runs[which].x for which in group])
            asked, sigma = partial(denoise, which=group), x.new_full((len(x),), step.sigma)
            x0_hat = call_if_it_fits(asked, x, sigma, device, divisible=len(group) > 1)
            if x0_hat is None:
                chunk = (len(group) + 1) // 2
                continue
            for which, prediction in zip(group, x0_hat.chunk(len(group))):
                runs[which].advance(len(edits[which].residuals) - left, prediction, callback)
            begun = begun[len(group) :]
    return [run.latent(device) for run in runs]


class _Run:
    """A replay under way: ``x`` is where it is, float64 on ``home``."""

    def __init__(self, maps: NoiseMaps, home: torch.device, mask: Tensor | None = None, local: Local | None = None):
        self.maps, self.local, self.before = maps, local, None
        mask = maps.mask if mask is None else mask
        self.mask = None if mask is None else mask.double().to(home)
        self.x = maps.latents[0].double().to(home)

    def advance(self, i: int, x0_hat: Tensor, callback: Callback | None) -> None:
        """Take step i with the model's prediction for ``x``."""
        maps, home = self.maps, self.x.device
        x = maps.steps[i].mean(self.x, x0_hat, self.before) + maps.residuals[i].to(home)
        if maps.pull is not None:
            x = x - maps.pull[i].to(x) * x0_hat
        for where in (self.mask, self.local and self.local(i)):
            if where is not None:
                source = maps.latents[i + 1].double().to(home)
                x = source + where.to(home) * (x - source)
        self.x, self.before = x, x0_hat
        if callback is not None:
            callback(i, x0_hat, x)

    def latent(self, device: torch.device | str) -> Tensor:
        return self.x.to(self.maps.latents.dtype).to(device)
