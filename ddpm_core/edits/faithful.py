"""Faithfulness: a pull of every step towards what the model predicted on the source's own path
(FlowAlign: arXiv 2505.23145, FlowAlign: Trajectory-Regularized, Inversion-Free Flow-based Image
Editing)."""

from __future__ import annotations

import dataclasses

import torch

from ..checks import BadArgument
from ..maps import NoiseMaps


def faithful(maps: NoiseMaps, strength: float) -> NoiseMaps:
    """Maps along which x_next += zeta (p - x0_hat): p the stored prediction, x0_hat the run's own,
    zeta the ``strength``.

    On the source's own path both are equal and nothing changes; the farther an edit leaves it, the
    more it is held. No step goes farther than to p in the place of its prediction. FlowAlign has
    zeta 0.01. Raises BadArgument for less than 0.
    """
    if strength < 0:
        raise BadArgument("strength", f"The faithfulness must be 0 or more; got {strength:g}.")
    reach = maps.per_step([step.reach for step in maps.steps]).to(maps.latents)
    shape = (len(reach), 1, 1, *maps.latents.shape[3:])
    before = reach.new_zeros(shape) if maps.pull is None else maps.pull
    pull = torch.maximum(before, torch.minimum(before + strength, reach))
    residuals = maps.residuals + (pull - before).double() * maps.predictions
    return dataclasses.replace(maps, residuals=residuals, pull=pull)
