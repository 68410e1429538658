"""The settings of an inversion in one object, and the presets: what papers and measurements
recommend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .checks import BadArgument, check_seed
from .steps import Process, Solver, Step, schedule


@dataclass(frozen=True)
class Plan:
    """What an inversion goes by, whatever the model and the picture.

    sigmas    (T+1,) noise levels of the whole schedule, strictly decreasing; the last may be 0
    skip      steps left out at the noisy end: they cost no evaluation (the paper's T - T_skip)
    eta       noise of the steps: 1 is DDPM, 0 is DDIM
    seed      of the path's noise; item i of the batch has seed + i
    guidance  of the denoiser that inverts, if it is known: the maps remember it, and guidance from
              the source starts from there

    Numbers only, so that plans can be compared and stored. Raises BadArgument, once, here.
    """

    sigmas: Sequence[float] | Tensor
    skip: int = 0
    eta: float = 1.0
    solver: Solver = Solver.FIRST_ORDER
    process: Process = Process.VE
    seed: int = 0
    guidance: float | None = None

    def __post_init__(self):
        check_seed(self.seed)
        object.__setattr__(self, "sigmas", tuple(float(sigma) for sigma in self.sigmas))
        schedule(self.sigmas, eta=self.eta, solver=self.solver, process=self.process)  # refuses what does not fit
        count = len(self.sigmas) - 1
        if not 0 <= self.skip < count:
            raise BadArgument("skip", f"skip must lie in [0, {count - 1}] for {count} steps; got {self.skip}.")

    @property
    def levels(self) -> Tensor:
        """``sigmas`` as a tensor (T+1,), float64."""
        return torch.tensor(self.sigmas, dtype=torch.float64)

    @cached_property
    def steps(self) -> list[Step]:
        """The transitions from ``skip`` on: the first of them has no step before it."""
        return schedule(self.sigmas[self.skip :], eta=self.eta, solver=self.solver, process=self.process)


@dataclass(frozen=True)
class Preset:
    """Settings that go together: steps of the schedule, skip, and the guidance of the inversion and
    of the edit."""

    steps: int
    skip: int
    guidance_source: float
    guidance_target: float

    def skip_of(self, steps: int) -> int:
        """The same share of another number of steps."""
        return round(self.skip / self.steps * steps)


PAPER = Preset(100, 36, 3.5, 15.0)  # Huberman-Spiegelglas et al. 2304.06140, appendix A; Stable Diffusion 1.4, eta 1
FAST = Preset(10, 4, 3.5, 15.0)  # as near to the truth as a hundred steps on known scenes (bench)
DEMO = Preset(50, 18, 1.0, 3.0)  # the embedded model, which is small
PROMPT_TO_PROMPT = Preset(100, 12, 3.5, 9.0)  # the same paper, "Prompt-to-Prompt + ours": with attention control
H_EDIT = Preset(50, 15, 1.0, 7.5)  # Nguyen et al. 2503.02187, h-Edit-R: guided from the source, here at equal strengths
TURBO = Preset(5, 1, 1.0, 1.5)  # TurboEdit 2408.00735: timesteps 799, 599, 399, 199; guidance from the source
PRESETS = {"quality": PAPER, "fast": FAST}
