"""The step against other libraries' schedulers and against its own formulas."""

import math

import pytest
import torch
from fakes import ddpm_sigmas, flow_sigmas, network, sigmas_of
from torch.testing import assert_close

from ddpm_core import Process, Solver, schedule

BETAS = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
def test_first_order_is_the_ddim_scheduler_of_diffusers(eta):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(20)
    abar = scheduler.alphas_cumprod.double()
    generator = torch.Generator().manual_seed(3)
    for t in scheduler.timesteps:
        x_vp, eps, z = (torch.randn(2, 4, 6, 8, generator=generator) for _ in range(3))
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        expected = scheduler.step(eps.double(), t, x_vp.double(), eta=eta, variance_noise=z.double()).prev_sample
        a = abar[t]
        a_next = abar[t - 50] if t >= 50 else abar[0]
        (step,) = schedule([((1 - a) / a) ** 0.5, ((1 - a_next) / a_next) ** 0.5], eta=eta)
        x = x_vp.double() / a.sqrt()
        x_next = step.mean(x, x - step.sigma * eps.double(), None) + step.up * z.double()
        assert_close(x_next * a_next.sqrt(), expected, rtol=1e-9, atol=1e-9)


def test_first_order_at_eta_1_is_the_ancestral_scheduler_of_diffusers():
    from diffusers import EulerAncestralDiscreteScheduler

    scheduler = EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.double()
    for i, step in enumerate(schedule(sigmas)):
        generator = torch.Generator().manual_seed(i)
        x, eps = torch.randn(2, 4, 5, 7, generator=generator), torch.randn(2, 4, 5, 7, generator=generator)
        scheduler.scale_model_input(x, scheduler.timesteps[i])
        expected = scheduler.step(
            eps, scheduler.timesteps[i], x, generator=torch.Generator().manual_seed(99)
        ).prev_sample
        z = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(99))
        assert_close(step.mean(x, x - step.sigma * eps, None) + step.up * z, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_first_order_up_is_the_ancestral_up_of_k_diffusion(eta):
    for step in schedule(ddpm_sigmas(30), eta=eta):
        a, b = step.sigma, step.sigma_next
        assert math.isclose(step.up, min(b, eta * (b**2 * (a**2 - b**2) / a**2) ** 0.5), rel_tol=1e-9, abs_tol=1e-12)


def test_second_order_is_the_sde_multistep_scheduler_of_diffusers():
    from diffusers import DPMSolverMultistepScheduler

    kind = {
        "algorithm_type": "sde-dpmsolver++",
        "solver_order": 2,
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "final_sigmas_type": "zero",
    }
    scheduler = DPMSolverMultistepScheduler(**BETAS, **kind)
    scheduler.set_timesteps(12)
    sigmas = scheduler.sigmas.double()
    denoise, before = network(0.3), None
    x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0)).double() * sigmas[0]
    for i, step in enumerate(schedule(sigmas, solver=Solver.DPMPP_2M_SDE)):
        x0_hat = denoise(x, torch.full((1,), step.sigma))
        vp = 1 / (1 + step.sigma**2) ** 0.5
        z = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(i))
        eps = (x - x0_hat) / step.sigma
        expected = scheduler.step(eps, scheduler.timesteps[i], x * vp, variance_noise=z.double()).prev_sample
        x = step.mean(x, x0_hat, before) + step.up * z
        before = x0_hat
        assert_close(x / (1 + step.sigma_next**2) ** 0.5, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", list(Solver))
def test_eta_0_on_a_flow_process_is_an_euler_step_along_the_velocity(solver):
    x, x0_hat = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 3, 4, 4).double()
    step = schedule(flow_sigmas(7), eta=0, solver=solver, process=Process.FLOW)[0]
    velocity = (x - x0_hat) / step.sigma
    assert step.up == 0
    assert_close(step.mean(x, x0_hat, None), x + (step.sigma_next - step.sigma) * velocity)


@pytest.mark.parametrize("process", list(Process))
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_step_with_exact_predictions_keeps_the_marginal(process, eta):
    """alpha x_0 + sigma e goes to alpha_next x_0 + noise of variance sigma_next^2."""
    sigmas = sigmas_of(process, 9)
    for step in schedule(sigmas, eta=eta, process=process):
        x0, e = torch.randn(1, 1, 4, 4).double(), torch.randn(1, 1, 4, 4).double()
        mean = step.mean(step.alpha * x0 + step.sigma * e, x0, None)
        direction = (step.sigma_next**2 - step.up**2) ** 0.5
        assert_close(mean, step.alpha_next * x0 + direction * e)
        assert 0 <= step.up <= step.sigma_next


@pytest.mark.parametrize("process", list(Process))
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_carry_and_reach_are_the_weights_of_the_mean(process, eta):
    """mean = carry x + reach x0_hat, of the first order."""
    sigmas = sigmas_of(process, 9)
    x, x0_hat = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    for step in schedule(sigmas, eta=eta, process=process):
        assert_close(step.mean(x, x0_hat, None), step.carry * x + step.reach * x0_hat)
        assert step.down == pytest.approx((step.sigma_next**2 - step.up**2) ** 0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("sigmas", "options", "words"),
    [
        ([1.0], {}, "at least 2 noise levels.*got 1"),
        ([1.0, 1.0, 0.0], {}, "decrease strictly.*got 1 followed by 1"),
        ([1.0, 2.0], {}, "decrease strictly.*got 1 followed by 2"),
        ([1.0, -0.5], {}, "got 1 followed by -0.5"),
        ([math.inf, 1.0], {}, "finite"),
        ([1.5, 0.0], {"process": Process.FLOW}, "flow process lie in .0, 1.; got 1.5"),
        ([1.000001, 0.5], {"process": Process.FLOW}, "got 1.000001 at the start"),
        ([1.0, 0.0], {"eta": -0.1}, "eta must lie in .0, 1..*got -0.1"),
        ([1.0, 0.0], {"eta": 1.1}, "eta must lie in .0, 1..*got 1.1"),
    ],
)
def test_bad_schedules_are_refused_with_the_value(sigmas, options, words):
    with pytest.raises(ValueError, match=words):
        schedule(sigmas, **options)
