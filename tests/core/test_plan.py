"""The settings of an inversion: what fits, what follows from them, and the presets."""

import math
from dataclasses import astuple

import pytest
import torch
from fakes import ddpm_sigmas, flow_sigmas

from ddpm_core import Plan, Process, Solver, schedule
from ddpm_core.checks import BadArgument
from ddpm_core.plan import DEMO, FAST, PAPER, PRESETS


def test_a_plan_is_numbers_that_can_be_compared_and_hashed():
    sigmas = ddpm_sigmas(7)
    plan, same = Plan(sigmas, skip=2), Plan(sigmas.tolist(), skip=2)
    assert plan.sigmas == tuple(sigmas.tolist())
    assert plan == same
    assert hash(plan) == hash(same)
    for other in ({"eta": 0.5}, {"skip": 3}, {"seed": 1}, {"solver": Solver.DPMPP_2M_SDE}):
        assert plan != Plan(sigmas, **{"skip": 2, **other})
    assert (plan.eta, plan.solver, plan.process, plan.seed) == (1.0, Solver.FIRST_ORDER, Process.VE, 0)
    assert Plan(sigmas).skip == 0


def test_levels_are_the_sigmas_as_a_tensor_in_double_precision():
    levels = Plan(ddpm_sigmas(7).float(), skip=3).levels
    assert levels.dtype == torch.float64
    assert torch.equal(levels, ddpm_sigmas(7).float().double())


@pytest.mark.parametrize("solver", list(Solver))
def test_the_steps_are_those_from_skip_on_and_the_first_has_no_history(solver):
    settings = {"eta": 0.4, "solver": solver, "process": Process.FLOW}
    plan = Plan(flow_sigmas(9), skip=4, **settings)
    assert plan.steps == schedule(flow_sigmas(9)[4:], **settings)
    assert plan.steps[0].history == 0
    assert [bool(step.history) for step in plan.steps[1:-1]] == 3 * [solver is Solver.DPMPP_2M_SDE]
    assert [step.sigma for step in plan.steps] == pytest.approx([5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9])


@pytest.mark.parametrize(
    ("sigmas", "settings", "argument", "words"),
    [
        ([1.0], {}, "sigmas", "at least 2 noise levels"),
        ([1.0, 2.0, 0.0], {}, "sigmas", "decrease strictly"),
        ([math.nan, 0.0], {}, "sigmas", "sigmas must be finite"),
        ([1.001, 0.5, 0.0], {"process": Process.FLOW}, "sigmas", r"lie in \[0, 1\]; got 1.001 at the start"),
        ([2.0, 1.0, 0.0], {"eta": -0.01}, "eta", "got -0.01"),
        ([2.0, 1.0, 0.0], {"skip": 2}, "skip", r"skip must lie in \[0, 1\] for 2 steps; got 2"),
        ([2.0, 1.0, 0.0], {"skip": -1}, "skip", "got -1"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_when_it_is_made(sigmas, settings, argument, words):
    with pytest.raises(BadArgument, match=words) as caught:
        Plan(sigmas, **settings)
    assert caught.value.argument == argument


def test_the_last_step_is_left_and_a_flow_may_begin_at_1():
    assert len(Plan([2.0, 1.0, 0.0], skip=1).steps) == 1
    assert Plan([1.0, 0.0], process=Process.FLOW).steps[0].alpha == 0


def test_the_presets_are_the_papers_and_the_measured_ones():
    assert astuple(PAPER) == (100, 36, 3.5, 15.0)
    assert astuple(FAST) == (10, 4, 3.5, 15.0)
    assert astuple(DEMO) == (50, 18, 1.0, 3.0)
    assert PRESETS == {"quality": PAPER, "fast": FAST}


@pytest.mark.parametrize(
    ("preset", "steps", "skip"),
    [(PAPER, 100, 36), (PAPER, 50, 18), (PAPER, 25, 9), (PAPER, 10, 4), (FAST, 10, 4), (FAST, 25, 10), (DEMO, 20, 7)],
)
def test_a_presets_skip_is_the_same_share_of_other_steps(preset, steps, skip):
    assert preset.skip_of(steps) == skip
