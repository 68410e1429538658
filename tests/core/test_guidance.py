"""Predictions under several prompts: against the updates of the papers, step by step in float64."""

import pytest
import torch
from fakes import ddpm_sigmas, flow_sigmas, network, sigmas_of
from torch.testing import assert_close

from ddpm_core import Plan, Process, Solver, invert, replay
from ddpm_core.checks import BadArgument
from ddpm_core.edits.faithful import faithful
from ddpm_core.guidance import Term, classifier_free, from_source, several

X0 = torch.randn(2, 4, 8, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
NEGATIVE, SOURCE, TARGET, OTHER = -0.4, 0.2, 1.0, -1.2


def predictions(process, *prompts):
    models = [network(prompt, process=process) for prompt in prompts]
    return lambda x, sigma: [model(x, sigma) for model in models]


def guided(rule, process, *prompts):
    """A denoiser: ``rule`` on the predictions under prompts."""
    ask = predictions(process, *prompts)
    return lambda x, sigma: rule(*ask(x, sigma))


def from_negative(w0):
    return lambda u, s: classifier_free(u, s, w0)


def h_edit(negative, source, target, scale, source_scale, base_scale):
    """u + w0 (s - u) + [u + w (t - u)] - [u + w^ (s - u)]: h-Edit-R, explicit (Nguyen et al.
    2503.02187), w^ = ``source_scale``; with another w^ than w the source does not come back."""
    base = classifier_free(negative, source, base_scale)
    return base + classifier_free(negative, target, scale) - classifier_free(negative, source, source_scale)


@pytest.mark.parametrize("w0", [1.0, 3.5])
@pytest.mark.parametrize(("w", "w_hat"), [(7.5, 5.0), (4.0, 4.0)])
@pytest.mark.parametrize("skip", [0, 4])
def test_h_edit_is_the_published_explicit_update(w0, w, w_hat, skip):
    ask = predictions(Process.VE, NEGATIVE, SOURCE, TARGET)
    source = guided(from_negative(w0), Process.VE, NEGATIVE, SOURCE)
    maps = invert(source, X0, Plan(ddpm_sigmas(12), skip=skip, eta=0.7))
    x = maps.latents[0]
    for step, residual in zip(maps.steps, maps.residuals):
        u, s, t = ask(x, x.new_full((len(x),), step.sigma))
        e_u, e_s, e_t = ((x - prediction) / step.sigma for prediction in (u, s, t))
        base = step.mean(x, u + w0 * (s - u), None) + residual
        correction = (e_u + w * (e_t - e_u)) - (e_u + w_hat * (e_s - e_u))
        x = base - (step.sigma - step.down) * correction
    rule = guided(lambda u, s, t: h_edit(u, s, t, w, w_hat, w0), Process.VE, NEGATIVE, SOURCE, TARGET)
    assert_close(replay(rule, maps), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("w0", [1.0, 3.5])
def test_equal_strengths_of_h_edit_are_guidance_from_the_source(w0):
    u, s, t = predictions(Process.VE, NEGATIVE, SOURCE, TARGET)(X0, torch.full((2,), 2.0, dtype=torch.float64))
    ours = from_source(classifier_free(u, s, w0), s, t, 6.0)
    assert_close(ours, h_edit(u, s, t, 6.0, 6.0, w0), rtol=0, atol=1e-12)
    assert not torch.allclose(ours, h_edit(u, s, t, 6.0, 5.0, w0))


def test_flow_align_is_guidance_from_the_source_with_a_pull():
    """y <- y + (t' - t) (v_p - v_q) + zeta (E[q_0] - E[p_0]), p = y + q - x_0 (2505.23145,
    algorithm 1)."""
    w, zeta, ask = 13.5, 0.01, predictions(Process.FLOW, SOURCE, TARGET)
    source = network(SOURCE, process=Process.FLOW)
    maps = invert(source, X0, Plan(flow_sigmas(33), eta=0.0, process=Process.FLOW))
    y = X0
    for step, q in zip(maps.steps, maps.latents):
        time = q.new_full((len(q),), step.sigma)
        p = y + q - X0
        s, t = ask(p, time)
        q_0, p_0 = source(q, time), s + w * (t - s)
        v_q, v_p = (q - q_0) / step.sigma, (p - p_0) / step.sigma
        y = y + (step.sigma_next - step.sigma) * (v_p - v_q) + zeta * (q_0 - p_0)
    rule = guided(lambda s, t: from_source(s, s, t, w), Process.FLOW, SOURCE, TARGET)
    assert_close(replay(rule, faithful(maps, zeta)), y, rtol=0, atol=1e-9)


@pytest.mark.parametrize("process", list(Process))
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("solver", list(Solver))
@pytest.mark.parametrize("w0", [0.0, 1.0, 3.5])
def test_the_source_as_target_comes_back_whatever_the_inversion_was_guided_by(process, eta, solver, w0):
    source = guided(from_negative(w0), process, NEGATIVE, SOURCE)
    plan = Plan(sigmas_of(process, 10), skip=2, eta=eta, solver=solver, process=process)
    maps = faithful(invert(source, X0, plan), 0.05)
    mask = torch.rand(2, 1, 8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rules = (
        lambda u, s, t: from_source(classifier_free(u, s, w0), s, t, 9.0),
        lambda u, s, t: h_edit(u, s, t, 7.0, 7.0, w0),
        lambda u, s, t: several(classifier_free(u, s, w0), s, [Term(t, 5.0, mask), Term(t, -3.0)]),
        lambda u, s, t: several(classifier_free(u, s, w0), u, [Term(t, 0.0, mask), Term(t, 0.0)]),
    )
    for rule in rules:
        assert_close(replay(guided(rule, process, NEGATIVE, SOURCE, SOURCE), maps), X0, rtol=0, atol=1e-9)
        if rule is not rules[-1]:
            assert not torch.allclose(replay(guided(rule, process, NEGATIVE, SOURCE, OTHER), maps), X0, atol=1e-3)


def test_several_edits_act_each_in_its_mask_with_its_sign():
    base, reference, first, second = torch.randn(4, 2, 4, 8, 10, dtype=torch.float64)
    left = torch.zeros(1, 1, 8, 10, dtype=torch.float64)
    left[..., :5] = 1
    together = several(base, reference, [Term(first, 3.0, left), Term(second, -2.0, 1 - left)])
    assert torch.equal(together[..., :5], (base + 3 * (first - reference))[..., :5])
    assert torch.equal(together[..., 5:], (base - 2 * (second - reference))[..., 5:])


@pytest.mark.parametrize("process", list(Process))
def test_the_more_faithful_the_nearer_to_the_source(process):
    source, target = network(SOURCE, process=process), network(TARGET, process=process)
    maps = invert(source, X0, Plan(sigmas_of(process, 20), process=process))
    away = [(replay(target, faithful(maps, z)) - X0).norm().item() for z in (0.0, 0.01, 0.05, 0.2, 5.0)]
    assert away == sorted(away, reverse=True)
    assert away[0] > 1.5 * away[-1]
    assert torch.equal(replay(target, faithful(maps, 0.0)), replay(target, maps))


def test_faithfulness_is_a_pull_of_its_strength_and_of_no_more_than_a_step():
    maps = invert(network(SOURCE), X0, Plan(ddpm_sigmas(10)))
    reach = torch.tensor([step.reach for step in maps.steps], dtype=torch.float64)
    for strength in (0.01, 0.3, 2.0):
        pull = faithful(maps, strength).pull
        assert_close(pull, reach.clamp(max=strength).view(-1, 1, 1, 1, 1).expand_as(pull))
    twice = faithful(faithful(maps, 0.01), 0.02)
    assert_close(twice.pull, faithful(maps, 0.03).pull)
    with pytest.raises(BadArgument, match="0 or more; got -0.1") as caught:
        faithful(maps, -0.1)
    assert caught.value.argument == "strength"
