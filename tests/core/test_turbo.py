"""Few-step edits against TurboEdit's update as it is published, in its own (VP) coordinates."""

import math

import pytest
import torch
from fakes import Counting, network, sigmas_of
from torch.testing import assert_close

from ddpm_core import Plan, Process, invert, replay
from ddpm_core.checks import BadArgument
from ddpm_core.guidance import from_source
from ddpm_core.inversions.choice import invert_by
from ddpm_core.inversions.turbo import CAP, cap_last, shifted_path
from ddpm_core.models.stable_diffusion import trailing_timesteps
from ddpm_core.noise import path_noise
from ddpm_core.plan import TURBO

ABAR = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
TIMES = [799, 599, 399, 199]
X0 = torch.randn(2, 4, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def turbo_plan(seed=7):
    levels = ((1 - ABAR) / ABAR).sqrt()[trailing_timesteps(TURBO.steps, 1000)]
    return Plan([*levels.tolist(), 0.0], TURBO.skip, seed=seed, guidance=TURBO.guidance_source)


def eps_network(prompt):
    """A noise prediction eps(x, t) of a VP model."""

    def eps(x, t):
        return 0.6 * x + 0.4 * torch.tanh(x.roll(1, -1) - 0.5 * x.roll(1, 1) + prompt + t / 1000)

    return eps


def as_denoiser(eps):
    """The same model as the core asks for it: x0_hat(x, sigma)."""

    def denoise(x, sigma):
        sigma = sigma.view(-1, 1, 1, 1)
        levels = ((1 - ABAR) / ABAR).sqrt()
        time = (sigma.view(-1, 1) - levels).abs().argmin(1).view(-1, 1, 1, 1)
        return x - sigma * eps(x / (1 + sigma**2).sqrt(), time.double())

    return denoise


def mean_and_deviation(x, eps, t, before):
    """DDPM's posterior (Ho et al. 2006.11239, eq. 7) from timestep t to the one ``before``; below 0
    is the picture."""
    abar, abar_before = ABAR[t], ABAR[before] if before >= 0 else torch.tensor(1.0, dtype=torch.float64)
    alpha, x0_hat = abar / abar_before, (x - (1 - abar).sqrt() * eps) / abar.sqrt()
    to_x0, to_x = abar_before.sqrt() * (1 - alpha) / (1 - abar), alpha.sqrt() * (1 - abar_before) / (1 - abar)
    return to_x0 * x0_hat + to_x * x, ((1 - abar_before) / (1 - abar) * (1 - alpha)).sqrt()


def published(source, target, w, cap):
    """TurboEdit (2408.00735): x_t is the picture with the noise of the timestep 200 lower, z_t its
    noise maps, e = s + w (t - s); the last residual's norm is capped."""
    noise = path_noise(X0.shape, 7, TURBO.steps)[TURBO.skip :].double()
    path = []
    for t, e in zip(TIMES, noise):
        abar = ABAR[t - 200] if t >= 200 else torch.tensor(1.0, dtype=torch.float64)
        path.append(abar.sqrt() * X0 + (1 - abar).sqrt() * e)
    path.append(X0)
    x = path[0]
    for i, (t, before) in enumerate(zip(TIMES, [*TIMES[1:], -1])):
        mean, deviation = mean_and_deviation(path[i], source(path[i], t), t, before)
        s, e = source(x, t), target(x, t)
        edited, _ = mean_and_deviation(x, s + w * (e - s), t, before)
        residual = path[i + 1] - mean
        if before >= 0:
            x = edited + deviation * (residual / deviation)
        else:
            norm = residual.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            x = edited + residual * (cap / norm).clamp(max=1)
    return x


@pytest.mark.parametrize("w", [0.0, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("cap", [CAP, 3.0])
def test_an_edit_is_the_published_one(w, cap):
    source, target = eps_network(0.2), eps_network(-0.7)
    maps = invert_by("turbo", as_denoiser(source), X0, turbo_plan(), cap=cap)

    def guided(x, sigma):
        s, t = as_denoiser(source)(x, sigma), as_denoiser(target)(x, sigma)
        return from_source(s, s, t, w)

    expected = published(source, target, w, cap * math.sqrt(X0[0].numel() / 16384))
    assert_close(replay(guided, maps), expected, rtol=0, atol=1e-9)
    assert (expected - X0).abs().max() > 0.1


def test_the_timesteps_are_turboedits():
    assert trailing_timesteps(5, 1000).tolist()[TURBO.skip :] == TIMES


def test_four_steps_and_twelve_rows_an_edit():
    source, target = Counting(network(0.1)), Counting(network(0.9))
    maps = invert_by("turbo", source, X0[:1], turbo_plan())

    def guided(x, sigma):
        s, t = source(x, sigma), target(x, sigma)
        return from_source(s, s, t, TURBO.guidance_target)

    replay(guided, maps)
    assert len(maps.residuals) == 4
    assert sum(source.sizes) + sum(target.sizes) == 12


@pytest.mark.parametrize("process", list(Process))
def test_the_source_comes_back_without_a_cap(process):
    sigmas = sigmas_of(process, 5)
    plan = Plan(sigmas, skip=1, process=process, seed=2)
    maps = invert_by("turbo", network(process=process), X0, plan)
    assert_close(replay(network(process=process), maps), X0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("process", list(Process))
def test_a_latent_has_the_noise_of_the_next_level(process):
    sigmas = sigmas_of(process, 5)
    plan = Plan(sigmas, skip=1, process=process, seed=2)
    one, other = (shifted_path(x0, plan) for x0 in (X0, torch.zeros_like(X0)))
    assert torch.equal(one[-1], X0)
    for step, with_picture, noise in zip(plan.steps, one, other):
        ratio = step.sigma_next / process.alpha(step.sigma_next)
        seen = process.size(step.sigma)
        assert (noise / seen).pow(2).mean() <= 1.1
        if step.sigma_next:
            picture = with_picture - noise
            assert noise.std() / (picture.std() / X0.std()) == pytest.approx(ratio, rel=0.1)
        else:
            assert not noise.any()


def test_a_cap_is_each_pictures_own_and_goes_with_its_size():
    x0 = X0 * torch.tensor([1.0, 30.0]).view(2, 1, 1, 1)
    maps = invert(network(), x0, turbo_plan(), path=shifted_path(x0, turbo_plan()))
    small, large = maps.residuals[-1].flatten(1).norm(dim=1).tolist()
    scale = math.sqrt(X0[0].numel() / 16384)
    cap = (small + large) / 2 / scale
    capped = cap_last(maps, cap)
    assert torch.equal(capped.residuals[:-1], maps.residuals[:-1])
    assert capped.residuals[-1].flatten(1).norm(dim=1).tolist() == pytest.approx([small, cap * scale])
    direction = maps.residuals[-1, 1] / large
    assert_close(capped.residuals[-1, 1] / (cap * scale), direction, rtol=0, atol=1e-12)
    assert cap_last(maps, 0) is maps


@pytest.mark.parametrize("cap", [-1.0, math.nan, math.inf])
def test_a_cap_that_is_none_is_refused(cap):
    maps = invert(network(), X0, turbo_plan(), path=shifted_path(X0, turbo_plan()))
    with pytest.raises(BadArgument, match="0 \\(none\\) or more; got") as caught:
        cap_last(maps, cap)
    assert caught.value.argument == "cap"
