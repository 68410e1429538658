"""Denoisers small enough to reason about, and jobs that misbehave as they are told."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddpm_core import Process


def spread(sigma: Tensor, x: Tensor) -> Tensor:
    """sigma (B,) as (B, 1, ..., 1)."""
    return sigma.view(-1, *[1] * (x.dim() - 1)).to(x)


def gaussian(mean: float = 0.0, variance: float = 1.0, process: Process = Process.VE):
    """The exact denoiser of data N(mean, variance I)."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        s = spread(sigma, x)
        a = process.alpha(s)
        return mean + a * variance / (a**2 * variance + s**2) * (x - a * mean)

    return denoise


def network(prompt: float = 0.0, process: Process = Process.VE):
    """A smooth nonlinear denoiser that mixes neighbours and depends on a "prompt"; any shape (B, C,
    *S)."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        s = spread(sigma, x)
        a = process.alpha(s)
        x0 = a * x / (a**2 + s**2)
        mixed = x0 + 0.5 * x0.roll(1, -1) - 0.3 * x0.roll(1, 1)
        return 0.7 * x0 + 0.5 * torch.tanh(mixed + prompt + 0.2 * torch.cos(s))

    return denoise


class Counting:
    """A denoiser that notes the size of each call."""

    def __init__(self, denoise):
        self.denoise, self.sizes = denoise, []

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.denoise(x, sigma)


def ddpm_sigmas(steps: int) -> Tensor:
    """Stable Diffusion's schedule with leading spacing, then 0; (steps + 1,), float64."""
    abar = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    timesteps = torch.arange(steps).flip(0) * (1000 // steps) + 1
    return torch.cat((((1 - abar) / abar).sqrt()[timesteps], torch.zeros(1, dtype=torch.float64)))


def flow_sigmas(steps: int) -> Tensor:
    """From 1 to 0 in even steps; (steps + 1,), float64."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


def sigmas_of(process: Process, steps: int) -> Tensor:
    return flow_sigmas(steps) if process is Process.FLOW else ddpm_sigmas(steps)


class Bare:
    """A worker that has nothing."""

    def __init__(self, args):
        pass


@dataclass(frozen=True)
class Chore:
    """A job whose process is killed the first ``deaths`` times that it is begun, and then gives a row
    with its name, how often it was begun and with how many threads, or raises."""

    name: str
    folder: Path
    deaths: int = 0
    error: Exception | None = None
    size = 1

    def do(self, worker: Bare):
        with (self.folder / self.name).open("a+") as file:
            file.write("x")
            file.seek(0)
            begun = len(file.read())
        if begun <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.error:
            raise self.error
        yield {"name": self.name, "begun": begun, "threads": torch.get_num_threads()}
