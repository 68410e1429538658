"""Native inversion, DDIM inversion and SDEdit, against their formulas and against diffusers."""

import dataclasses

import pytest
import torch
from fakes import Counting, ddpm_sigmas, flow_sigmas, gaussian, network, sigmas_of
from torch.testing import assert_close

from ddpm_core import NoiseMaps, Plan, Process, Solver, auxiliary_path, invert, push_color, replay, schedule, shift
from ddpm_core.inversions.choice import INVERSIONS, invert_by
from ddpm_core.inversions.ddim import invert_ddim
from ddpm_core.inversions.native import native_path
from ddpm_core.inversions.sdedit import sdedit
from ddpm_core.inversions.turbo import cap_last, shifted_path
from ddpm_core.measure.stats import statistics

BETAS = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.fixture
def x0():
    return torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(5))


def noise_of(path, x0, sigmas, process):
    """The e of x = alpha x_0 + sigma e at every level but the last."""
    levels = sigmas[:-1].view(-1, 1, 1, 1, 1)
    return (path[:-1].double() - process.alpha(levels) * x0.double()) / levels


@pytest.mark.parametrize("process", list(Process))
def test_a_native_path_has_the_marginals_of_the_auxiliary_one_and_remembers(x0, process):
    sigmas = sigmas_of(process, 20)
    native, auxiliary = (
        noise_of(path(x0, Plan(sigmas, process=process)), x0, sigmas, process) for path in (native_path, auxiliary_path)
    )
    for e in (native, auxiliary):
        assert_close(e.flatten(1).var(1), torch.ones(20, dtype=torch.float64), rtol=0, atol=0.15)
    correlations = [
        [torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1].item() for a, b in zip(e[1:-1], e[2:])]
        for e in (native, auxiliary)
    ]
    assert min(correlations[0]) > 0.15
    assert max(map(abs, correlations[1])) < 0.1


def test_a_native_path_draws_as_many_numbers_as_the_schedule_has_steps():
    """15 steps and one cell: so short a draw is not the beginning of a longer one."""
    x0, sigmas = torch.ones(1, 1, 1, 1), ddpm_sigmas(15)
    first = torch.randn(15, 1, 1, 1, generator=torch.Generator().manual_seed(2))[0]
    assert_close(native_path(x0, Plan(sigmas, seed=2))[0, 0], (1 + sigmas[0] * first).float())


@pytest.mark.parametrize("process", list(Process))
def test_a_step_of_ddim_inversion_is_its_formula(x0, process):
    sigmas, denoise = sigmas_of(process, 6), network(process=process)
    plan = Plan(sigmas, process=process, skip=2, guidance=3.5)
    x, expected = x0.double(), []
    for sigma, sigma_next in reversed(list(zip(sigmas[2:-1], sigmas[3:]))):
        a, a_next = (process.alpha(s) for s in (sigma, sigma_next))
        guess = x if process is Process.FLOW else x * ((1 + sigma**2) / (1 + sigma_next**2)) ** 0.5
        eps_hat = (guess - a * denoise(guess, sigma.expand(2))) / sigma
        x = a / a_next * (x - sigma_next * eps_hat) + sigma * eps_hat
        expected.append(x)
    maps = invert_ddim(denoise, x0, plan)
    assert_close(maps.latents[:-1].flip(0), torch.stack(expected).float(), rtol=1e-5, atol=1e-5)
    assert (maps.guidance, maps.skipped) == (3.5, 2)


def test_a_native_path_takes_the_steps_of_the_sampler_from_the_true_picture(x0):
    sigmas = ddpm_sigmas(10)
    path = native_path(x0.double(), Plan(sigmas, eta=0.6))
    for step, x, x_next in list(zip(schedule(sigmas, eta=0.6), path, path[1:]))[:-1]:
        z = (x_next - step.mean(x, x0.double(), None)) / step.up
        assert abs(z.var().item() - 1) < 0.15
        assert abs(z.mean().item()) < 0.1


def drawn(x0, count, seed):
    """Standard normal numbers (count, B, C, *S): item i has a generator of its own, seed + i."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(x0))]
    return torch.stack([torch.randn(count, *x0.shape[1:], generator=g) for g in generators], 1).double()


@pytest.mark.parametrize("process", list(Process))
def test_a_native_path_walks_on_the_seeds_noise_number_by_number(x0, process):
    """x_{t-1} = alpha_next x_0 + sqrt(sigma_next^2 - up^2) e_t + up z_t, with e_t = (x_t - alpha
    x_0) / sigma."""
    settings = {"eta": 0.6, "process": process}
    sigmas, clean, noise = sigmas_of(process, 8), x0.double(), drawn(x0, 8, 11)
    e, expected = noise[0], [process.alpha(sigmas[0]) * clean + sigmas[0] * noise[0]]
    for step, z in zip(schedule(sigmas, **settings)[:-1], noise[1:]):
        e = ((step.sigma_next**2 - step.up**2) ** 0.5 * e + step.up * z) / step.sigma_next
        expected.append(step.alpha_next * clean + step.sigma_next * e)
    path = native_path(x0, Plan(sigmas, seed=11, skip=2, **settings))
    assert path.dtype == torch.float32
    assert_close(path, torch.stack([*expected[2:], clean]).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("process", list(Process))
@pytest.mark.parametrize("eta", [0.6, 1.0])
def test_sdedit_has_the_plans_settings_and_noise_of_its_own(x0, process, eta):
    sigmas, settings = sigmas_of(process, 8), {"eta": eta, "process": process, "seed": 11}
    maps = sdedit(x0, Plan(sigmas, skip=3, **settings))
    assert {name: getattr(maps, name) for name in settings} == settings
    assert (maps.skipped, maps.total_steps, maps.solver) == (3, 8, Solver.FIRST_ORDER)
    assert torch.equal(maps.latents, auxiliary_path(x0, Plan(sigmas, skip=3, seed=11, process=process)))
    ups = torch.tensor([step.up for step in schedule(sigmas[3:], eta=eta, process=process)]).view(-1, 1, 1, 1, 1)
    assert_close(maps.residuals, ups * drawn(x0, 18, 11)[-5:], rtol=1e-6, atol=1e-6)
    assert torch.equal(maps.predictions, x0.expand(5, *x0.shape))


def test_sdedit_of_any_dtype_can_be_saved(x0, tmp_path):
    """safetensors refuses tensors that share memory: with one step, the prediction and x_0."""
    maps = sdedit(x0.double(), Plan(ddpm_sigmas(8), skip=7))
    assert maps.latents.dtype == torch.float32
    maps.save(tmp_path / "maps.safetensors")
    assert torch.equal(NoiseMaps.load(tmp_path / "maps.safetensors").predictions, maps.predictions)


def test_sdedit_uses_no_noise_of_its_path_again(x0):
    """Another place of the same stream would correlate fully."""
    sigmas = ddpm_sigmas(8)
    maps = sdedit(x0, Plan(sigmas, seed=3))
    path = noise_of(maps.latents, x0, sigmas, Process.VE)
    steps = maps.residuals[:-1] / torch.tensor([step.up for step in maps.steps[:-1]]).view(-1, 1, 1, 1, 1)
    rows = torch.cat((path.flatten(1), steps.flatten(1)))
    assert (torch.corrcoef(rows) - torch.eye(15)).abs().max() < 0.1


def test_a_native_path_without_noise_keeps_one_noise(x0):
    sigmas = ddpm_sigmas(8)
    e = noise_of(native_path(x0.double(), Plan(sigmas, eta=0.0)), x0, sigmas, Process.VE)
    assert_close(e, e[:1].expand_as(e), rtol=1e-9, atol=1e-9)


def test_a_native_path_ends_at_the_picture_and_skipping_cuts_its_beginning(x0):
    sigmas = ddpm_sigmas(12)
    path = native_path(x0, Plan(sigmas, seed=3))
    assert torch.equal(path[-1], x0)
    assert torch.equal(native_path(x0, Plan(sigmas, seed=3, skip=5)), path[5:])
    assert not torch.equal(native_path(x0, Plan(sigmas, seed=4))[:-1], path[:-1])
    assert torch.equal(native_path(x0[1:], Plan(sigmas, seed=4))[:, 0], native_path(x0, Plan(sigmas, seed=3))[:, 1])


@pytest.mark.parametrize("process", list(Process))
def test_native_maps_give_the_picture_back_and_can_be_edited(x0, process):
    sigmas, denoise = sigmas_of(process, 15), network(process=process)
    maps = invert(
        denoise, x0, Plan(sigmas, process=process, skip=2), path=native_path(x0, Plan(sigmas, process=process, skip=2))
    )
    assert_close(replay(denoise, maps), x0, rtol=0, atol=1e-5)
    assert_close(
        replay(denoise, shift(maps, 3, 0, fill="wrap")), x0.roll(3, -1), rtol=0, atol=1e-5
    )  # the fake commutes with it
    mask = torch.ones(1, 1, 12, 16)
    assert (replay(denoise, push_color(maps, x0 + 1, mask, strength=0.1)) - x0).mean() > 0.05


def test_sdedit_is_plain_sampling_from_the_noised_picture(x0):
    sigmas, denoise = ddpm_sigmas(10), network(0.7)
    maps = sdedit(x0, Plan(sigmas, skip=4, seed=2))
    x = maps.latents[0].double()
    e = (x - x0.double()) / sigmas[4]
    assert abs(e.var().item() - 1) < 0.1
    for step, residual in zip(schedule(sigmas[4:]), maps.residuals):
        x = step.mean(x, denoise(x, torch.full((2,), step.sigma, dtype=torch.float64)), None) + residual
    assert_close(replay(denoise, maps).double(), x, rtol=0, atol=1e-5)
    measures = statistics(maps)
    assert_close(measures.variance, torch.ones_like(measures.variance), rtol=0, atol=0.2)
    assert measures.correlation.abs().max() < 0.15
    assert (
        abs(torch.corrcoef(torch.stack((e.flatten(), maps.residuals[0].flatten())))[0, 1]) < 0.1
    )  # no noise is used twice


def test_sdedit_keeps_more_the_more_is_skipped(x0):
    sigmas, denoise = ddpm_sigmas(20), network(0.7)
    errors = [
        (replay(denoise, sdedit(x0, Plan(sigmas, skip=skip))) - x0).square().mean().item() for skip in (2, 10, 18)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_ddim_inversion_is_the_inverse_scheduler_of_diffusers(x0):
    from diffusers import DDIMInverseScheduler

    scheduler = DDIMInverseScheduler(**BETAS, clip_sample=False, set_alpha_to_one=True, steps_offset=1)
    scheduler.set_timesteps(10)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()

    def eps_hat(x_vp):
        return torch.tanh(0.8 * x_vp.roll(1, -1) - 0.2)

    x, expected = x0.double(), []
    for t in scheduler.timesteps:
        x = scheduler.step(eps_hat(x), t, x).prev_sample
        expected.append(x / scheduler.alphas_cumprod[t].sqrt())

    def denoise(x, sigma):
        spread = sigma.view(-1, 1, 1, 1)
        return x - spread * eps_hat(x / (1 + spread**2).sqrt())

    abar = scheduler.alphas_cumprod[scheduler.timesteps.flip(0)]
    sigmas = torch.cat((((1 - abar) / abar).sqrt(), torch.zeros(1)))
    maps = invert_ddim(denoise, x0, Plan(sigmas))
    assert_close(maps.latents[:-1].flip(0).double(), torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("process", list(Process))
def test_ddim_inversion_comes_back_the_better_the_more_it_is_corrected(x0, process):
    sigmas = sigmas_of(process, 20)
    denoise = Counting(gaussian(0.3, 0.5, process))
    errors = []
    for corrections in (0, 1, 4):
        denoise.sizes.clear()
        maps = invert_ddim(denoise, x0, Plan(sigmas, process=process), corrections=corrections)
        assert denoise.sizes == [2] * (20 * (1 + corrections))
        errors.append((replay(denoise, maps) - x0).abs().max().item())
    assert errors[0] > 1.5 * errors[1]
    assert errors[1] > 1.5 * errors[2]
    assert not maps.residuals.any()
    assert maps.eta == 0


@pytest.mark.parametrize("process", list(Process))
def test_the_callback_of_ddim_inversion_sees_the_path_from_the_picture_to_the_noise(x0, process):
    seen = []
    plan = Plan(sigmas_of(process, 6), process=process, skip=1)
    maps = invert_ddim(network(process=process), x0, plan, callback=lambda *step: seen.append(step))
    assert [index for index, _, _ in seen] == list(range(5))
    latents = torch.stack([latent for _, _, latent in seen])
    assert_close(latents.flip(0).float(), maps.latents[:-1], rtol=1e-6, atol=1e-6)
    for (_, prediction, _), step, x_next in zip(seen, maps.steps[::-1], maps.latents.flip(0)):
        guess = x_next.double()
        if process is Process.VE:
            guess = guess * ((1 + step.sigma**2) / (1 + step.sigma_next**2)) ** 0.5
        expected = network(process=process)(guess, torch.full((2,), step.sigma, dtype=torch.float64))
        assert_close(prediction, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("process", list(Process))
def test_the_predictions_of_ddim_inversion_lead_along_its_path(x0, process):
    """latents[i + 1] is the mean of latents[i] and predictions[i]."""
    sigmas = sigmas_of(process, 12)
    maps = invert_ddim(network(process=process), x0, Plan(sigmas, skip=3, process=process))
    assert maps.skipped == 3
    assert torch.equal(maps.latents[-1], x0)
    for step, x, x_next, x0_hat in zip(maps.steps, maps.latents, maps.latents[1:], maps.predictions):
        assert_close(step.mean(x.double(), x0_hat.double(), None).float(), x_next, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", INVERSIONS)
def test_every_inversion_can_be_asked_for_by_name(x0, method):
    sigmas, seen = ddpm_sigmas(8), []
    mask = torch.ones(1, 1, 12, 16)
    mask[..., :8] = 0
    maps = invert_by(
        method,
        network(),
        x0,
        Plan(sigmas, skip=2, seed=3),
        mask=mask,
        callback=lambda i, prediction, latent: seen.append(i),
    )
    assert maps.skipped == 2
    assert torch.equal(maps.mask, mask)
    assert seen == ([] if method == "sdedit" else list(range(6)))
    outside = (replay(network(0.9), maps) - x0).abs().amax((0, 1, 2))
    assert outside[:8].max() < 1e-5
    assert outside[8:].min() > 1e-3


FLOW = {"skip": 2, "eta": 0.6, "process": Process.FLOW, "seed": 3}
PLANS = {
    "first order": Plan(ddpm_sigmas(8), skip=2, eta=0.6, seed=3),
    "second order": Plan(ddpm_sigmas(8), skip=2, solver=Solver.DPMPP_2M_SDE, seed=3),
    "flow": Plan(flow_sigmas(8), **FLOW),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_an_inversion_by_name_is_the_inversion_with_all_settings(x0, plan):
    denoise = network(process=plan.process)
    expected = {
        "edit-friendly": invert(denoise, x0, plan),
        "native": invert(denoise, x0, plan, path=native_path(x0, plan)),
        "ddim": invert_ddim(denoise, x0, plan, corrections=2),
        "sdedit": sdedit(x0, plan),
        "turbo": cap_last(invert(denoise, x0, plan, path=shifted_path(x0, plan)), 2.0),
    }
    assert set(expected) == set(INVERSIONS)
    for method, maps in expected.items():
        by_name = invert_by(method, denoise, x0, plan, corrections=2, cap=2.0, chunk=3)
        for field in dataclasses.fields(maps):
            ours, direct = getattr(by_name, field.name), getattr(maps, field.name)
            if isinstance(direct, torch.Tensor):
                assert_close(ours, direct, rtol=1e-5, atol=1e-6)
            else:
                assert ours == direct, (method, field.name)
        assert (maps.process, maps.skipped) == (plan.process, 2)
        assert maps.eta == (0.0 if method == "ddim" else plan.eta)
        if method in ("edit-friendly", "native", "turbo"):
            assert maps.solver is plan.solver
        if method != "ddim":
            assert maps.seed == 3


@pytest.mark.parametrize(
    ("method", "sizes"), [("edit-friendly", [6, 6]), ("native", [6, 6]), ("turbo", [6, 6]), ("ddim", [2] * 12)]
)
def test_chunk_and_corrections_reach_the_method_that_has_them(x0, method, sizes):
    counting = Counting(network())
    invert_by(method, counting, x0, Plan(ddpm_sigmas(6)), chunk=3, corrections=1)
    assert counting.sizes == sizes


def test_an_unknown_inversion_is_refused(x0):
    with pytest.raises(ValueError, match="one of edit-friendly, native, ddim, sdedit, turbo; got 'pnp'"):
        invert_by("pnp", network(), x0, Plan(ddpm_sigmas(4)))
