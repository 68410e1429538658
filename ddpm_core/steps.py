"""One step of the sampler: processes, solvers, and the mean that inversion and replay share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from .checks import BadArgument

MOST = 1e19  # of a noise level


class Process(str, Enum):
    """How a noisy latent is made: x = alpha x_0 + sigma e."""

    VE = "ve"  # eps-, v- and EDM-models; a VP model after division by sqrt(abar)
    FLOW = "flow"  # rectified flow: SD3, Flux

    def alpha(self, sigma):
        """alpha of a noise level (a float or a tensor, returned as the same)."""
        return 1 - sigma if self is Process.FLOW else 0 * sigma + 1

    def size(self, sigma: float) -> float:
        """The size of a noisy latent: what a model divides by before it looks."""
        return 1.0 if self is Process.FLOW else math.sqrt(1 + sigma**2)


class Solver(str, Enum):
    """How the mean of a step follows from the model's predictions."""

    FIRST_ORDER = "first_order"  # DDPM at eta 1, DDIM at eta 0
    DPMPP_2M_SDE = "dpmpp_2m_sde"  # second order multistep (Lu et al. 2211.01095; the solver of LEDITS++)


@dataclass(frozen=True)
class Step:
    """The transition from ``sigma`` to ``sigma_next``, as plain numbers in double precision.

    ``history`` weighs the difference between this prediction and the one of the step before; it
    is 0 for the first order and for the first step of a run.
    """

    sigma: float
    sigma_next: float
    alpha: float
    alpha_next: float
    up: float
    history: float

    @property
    def down(self) -> float:
        """The noise level that the step leads to before it adds noise: sqrt(sigma_next^2 -
        up^2)."""
        return math.sqrt(max(self.sigma_next**2 - self.up**2, 0.0))

    @property
    def carry(self) -> float:
        """The weight of x in the mean: down / sigma."""
        return self.down / self.sigma

    @property
    def reach(self) -> float:
        """The weight of the step's own prediction in its mean: alpha_next - carry alpha, of the
        first order."""
        return self.alpha_next - self.carry * self.alpha

    def mean(self, x: Tensor, x0_hat: Tensor, x0_before: Tensor | None) -> Tensor:
        """Where the step leads without noise. All tensors (B, C, *S).

            mean = alpha_next x0_hat + down eps_hat + history (x0_hat - x0_before),
            eps_hat = (x - alpha x0_hat) / sigma,    down = sqrt(sigma_next^2 - up^2)

        Eq. 12 of arXiv 2010.02502, Denoising Diffusion Implicit Models; history: arXiv
        2211.01095, DPM-Solver++.
        """
        eps_hat = (x - self.alpha * x0_hat) / self.sigma
        mean = self.alpha_next * x0_hat + self.down * eps_hat
        return mean + self.history * (x0_hat - x0_before) if self.history else mean


def schedule(
    sigmas: Sequence[float] | Tensor,
    *,
    eta: float = 1.0,
    solver: Solver = Solver.FIRST_ORDER,
    process: Process = Process.VE,
) -> list[Step]:
    """The steps between neighbouring noise levels.

    With decay = (alpha sigma_next) / (alpha_next sigma), that is exp(-h) for the step h in log
    SNR:

        first order     up = eta sigma_next sqrt(1 - decay^2)    (DDIM eq. 16; k-diffusion's
                        ancestral step)
        dpmpp_2m_sde    up = sigma_next sqrt(1 - decay^(2 eta)),
                        history = alpha_next (1 - decay^(1 + eta)) h / (2 h_before)

    ``sigmas`` (T+1,) must decrease strictly, stay within the process's range, and may end at 0.
    Raises BadArgument.
    """
    sigmas = [float(sigma) for sigma in sigmas]
    _check_sigmas(sigmas, process)
    if not 0 <= eta <= 1:
        raise BadArgument("eta", f"eta must lie in [0, 1] (1 is DDPM, 0 is DDIM); got {eta}.")
    steps, h_before = [], None
    for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:]):
        alpha, alpha_next = process.alpha(sigma), process.alpha(sigma_next)
        decay = alpha * sigma_next / (alpha_next * sigma)
        h = -math.log(decay) if decay > 0 else math.inf
        history = 0.0
        if solver is Solver.DPMPP_2M_SDE:
            up = sigma_next * math.sqrt(1 - decay ** (2 * eta))
            if h_before is not None and math.isfinite(h):
                history = alpha_next * (1 - decay ** (1 + eta)) * h / (2 * h_before)
        else:
            up = eta * sigma_next * math.sqrt(1 - decay**2)
        steps.append(Step(sigma, sigma_next, alpha, alpha_next, up, history))
        h_before = h
    return steps


def _check_sigmas(sigmas: list[float], process: Process) -> None:
    if len(sigmas) < 2:
        raise BadArgument("sigmas", f"sigmas must hold at least 2 noise levels (one step); got {len(sigmas)}.")
    if not all(map(math.isfinite, sigmas)):
        raise BadArgument("sigmas", f"sigmas must be finite; got {sigmas}.")
    extremes = max(sigmas), min((sigma for sigma in sigmas if sigma > 0), default=1.0)
    if not MOST >= extremes[0] or not extremes[1] >= 1 / MOST:
        rule = f"sigmas must lie in [{1 / MOST:.2g}, {MOST:.2g}], where float32 has their squares, or be 0"
        raise BadArgument("sigmas", f"{rule}; got {extremes[1]:g} to {extremes[0]:g}.")
    for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:]):
        if not sigma > sigma_next >= 0:
            got = f"got {sigma:g} followed by {sigma_next:g}"
            raise BadArgument("sigmas", f"sigmas must decrease strictly and not go below 0; {got}.")
    if process is Process.FLOW and sigmas[0] > 1:
        raise BadArgument("sigmas", f"sigmas of a flow process lie in [0, 1]; got {sigmas[0]:.9g} at the start.")
