"""Edits in common calls of the model are the edits one by one."""

import pytest
import torch
from fakes import ddpm_sigmas, network
from torch.testing import assert_close

from ddpm_core import Plan, Solver, invert, replay, replay_several, scale
from ddpm_core.checks import BadArgument
from ddpm_core.edits.faithful import faithful

X0 = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
HALF = torch.zeros(1, 1, 6, 8)
HALF[..., 4:] = 1
PROMPTS = [0.3, -0.2, 0.9, 0.5, 0.1]


def maps_of(solver):
    """Other seeds, skips, masks and pulls along one schedule."""
    plan = Plan(ddpm_sigmas(9), skip=1, solver=solver)
    first = invert(network(), X0, plan)
    other = invert(network(), X0.flip(-1), Plan(ddpm_sigmas(9), skip=3, seed=7, solver=solver), mask=HALF)
    return [first, other, first.skip(5), faithful(first.skip(2), 0.1), scale(other, 0.5)]


class Asked:
    """The denoisers of all prompts in one; notes which were asked for."""

    def __init__(self, limit=None):
        self.calls, self.limit = [], limit

    def __call__(self, x, sigma, which):
        if self.limit and len(which) > self.limit:
            raise RuntimeError("CUDA out of memory")
        self.calls.append(list(which))
        parts = zip(which, x.chunk(len(which)), sigma.chunk(len(which)))
        return torch.cat([network(PROMPTS[i])(part, level) for i, part, level in parts])


@pytest.mark.parametrize("solver", list(Solver))
def test_each_is_as_alone(solver):
    edits, steps = maps_of(solver), []
    results = replay_several(Asked(), edits, callback=lambda i, x0_hat, x: steps.append((i, x0_hat.shape)))
    assert len(results) == len(edits)
    for prompt, maps, result in zip(PROMPTS, edits, results):
        assert torch.equal(result, replay(network(prompt), maps))
    assert sorted(i for i, _ in steps) == sorted(i for maps in edits for i in range(len(maps.residuals)))
    assert {shape for _, shape in steps} == {X0.shape}


def test_those_that_begin_later_join_when_they_come():
    asked = Asked()
    replay_several(asked, maps_of(Solver.FIRST_ORDER))
    assert asked.calls == [[0], [0, 3], *[[0, 1, 3, 4]] * 2, *[[0, 1, 2, 3, 4]] * 4]
    asked = Asked()
    replay_several(asked, maps_of(Solver.FIRST_ORDER), chunk=2)
    assert asked.calls[:4] == [[0], [0, 3], [0, 1], [3, 4]]
    assert asked.calls[-3:] == [[0, 1], [2, 3], [4]]


def test_what_does_not_fit_into_the_memory_is_halved():
    edits, asked = maps_of(Solver.FIRST_ORDER), Asked(limit=2)
    results = replay_several(asked, edits)
    assert max(map(len, asked.calls)) == 2
    for prompt, maps, result in zip(PROMPTS, edits, results):
        assert torch.equal(result, replay(network(prompt), maps))
    with pytest.raises(RuntimeError, match="out of memory"):
        replay_several(lambda x, sigma, which: Asked(limit=0.5)(x, sigma, which), edits)


def test_nothing_to_do_and_what_does_not_go_together():
    first, *_ = maps_of(Solver.FIRST_ORDER)
    assert replay_several(Asked(), []) == []
    others = [
        invert(network(), X0, Plan(ddpm_sigmas(8))),
        invert(network(), X0[..., 1:], Plan(ddpm_sigmas(9), skip=1)),
        invert(network(), X0[:1], Plan(ddpm_sigmas(9), skip=1)),
    ]
    for other in others:
        with pytest.raises(BadArgument, match="one schedule and size") as caught:
            replay_several(Asked(), [first, other])
        assert caught.value.argument == "edits"
    with pytest.raises(BadArgument, match="chunk must be 1 or more"):
        replay_several(Asked(), [first], chunk=0)


def test_a_prediction_of_another_shape_is_refused():
    first, *_ = maps_of(Solver.FIRST_ORDER)
    with pytest.raises(BadArgument, match="must return the shape of x"):
        replay_several(lambda x, sigma, which: x[1:], [first, first])
    assert_close(replay_several(Asked(), [first])[0], replay(network(PROMPTS[0]), first), rtol=0, atol=0)
