"""SDEdit as noise maps (arXiv 2108.01073, SDEdit: Guided Image Synthesis and Editing with
Stochastic Differential Equations)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_latent
from ..maps import NoiseMaps
from ..noise import sdedit_noise
from ..plan import Plan
from ..steps import schedule
from .edit_friendly import auxiliary_path


def sdedit(x0: Tensor, plan: Plan) -> NoiseMaps:
    """The picture noised to the level after ``skip`` steps, then native noise: residual = up z, z ~
    N(0, I). No model is needed.

    x0 (B, C, *S), for a colour edit the encoding of the painted picture; strength is 1 - skip /
    steps. A replay under the same prompt does not give the picture back. The steps are of first
    order; predictions are x_0 itself.
    """
    check_latent(x0)
    levels = plan.levels
    steps = schedule(levels[plan.skip :], eta=plan.eta, process=plan.process)
    path = auxiliary_path(x0.float(), plan)
    native = sdedit_noise(x0.shape, plan.seed, len(levels) - 1, len(steps)).double()
    ups = torch.tensor([step.up for step in steps], dtype=torch.float64).view(-1, *[1] * x0.dim())
    predictions = path[-1:].expand(len(steps), *x0.shape).clone()
    rest = {"eta": plan.eta, "process": plan.process, "seed": plan.seed, "skipped": plan.skip}
    return NoiseMaps(levels[plan.skip :], path, ups * native, predictions, **rest)
