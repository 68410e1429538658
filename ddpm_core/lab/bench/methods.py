"""Every way of editing that is measured, as noise maps for one replay, and what a run of it
takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ...inversions.choice import invert_by
from ...maps import NoiseMaps
from ...models.stable_diffusion import Pipeline
from ...plan import Plan
from ...replay import replay
from ...steps import Solver
from ..calls import UNetCalls

NAMES = {"ddim": "DDIM", "sdedit": "SDEdit"}


@dataclass(frozen=True)
class Inversion:
    """How pictures become noise maps."""

    method: str = "edit-friendly"
    steps: int = 20
    cfg_source: float = 1.0
    eta: float = 1.0
    solver: Solver = Solver.FIRST_ORDER
    corrections: int = 0  # of DDIM inversion

    @property
    def name(self) -> str:
        """The method in words, with what sets it apart from the paper's setting."""
        words = [NAMES.get(self.method, self.method)]
        if self.cfg_source != 1:
            words.append(f"source cfg {self.cfg_source:g}")
        if self.eta != 1:
            words.append(f"eta {self.eta:g}")
        if self.corrections:
            words.append(f"{self.corrections} corrections")
        return ", ".join(words)

    def run(self, model: Pipeline, x0: Tensor, captions: Sequence[str], *, skip: int, seed: int = 0) -> NoiseMaps:
        """The maps of latents x0 (B, C, h, w), one caption each, from step ``skip`` on."""
        denoise = None if self.method == "sdedit" else model.denoiser(list(captions), guidance=self.cfg_source)
        plan = Plan(model.sigmas(self.steps), skip=skip, eta=self.eta, solver=self.solver, seed=seed)
        chunk = max(1, 16 // len(x0))
        return invert_by(self.method, denoise, x0, plan, chunk=chunk, corrections=self.corrections)


@dataclass
class Cost:
    """What a piece of work took."""

    samples: float = 0  # latents that the UNet saw, both guidance branches counted
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.samples + other.samples, self.seconds + other.seconds)

    def __mul__(self, share: float) -> Cost:
        return Cost(self.samples * share, self.seconds * share)


class Passes(UNetCalls):
    """A backward pass to the UNet's input counts as one more: as much arithmetic as a forward
    one."""

    def after(self, module, inputs, output) -> None:
        if output.sample.requires_grad:
            self.sizes.append(len(output.sample))


@contextmanager
def cost(model: Pipeline) -> Iterator[Cost]:
    """The cost of what happens inside, known once it has ended."""
    taken, start = Cost(), time.perf_counter()
    with Passes(model.pipe.unet) as calls:
        yield taken
    taken.samples, taken.seconds = sum(calls.sizes), time.perf_counter() - start


def edit(model: Pipeline, maps: NoiseMaps, captions: Sequence[str], cfg: float) -> Tensor:
    """Pictures (B, 3, H, W) of a replay under the captions."""
    return decoded(model, replay(model.denoiser(list(captions), guidance=cfg), maps))


def decoded(model: Pipeline, latents: Tensor) -> Tensor:
    """Pictures of latents. One by one, which a CPU's caches like better."""
    return torch.cat([model.decode(latent[None]) for latent in latents])
