"""Statistics of noise maps: the measures of the paper on an exact denoiser, and made-up maps whose
measures are known."""

import pytest
import torch
from fakes import ddpm_sigmas, gaussian
from torch.testing import assert_close

from ddpm_core import NoiseMaps, Plan, invert
from ddpm_core.inversions.native import native_path
from ddpm_core.measure.stats import angles, statistics

STEPS = 50


@pytest.fixture(scope="module")
def picture():
    return torch.randn(1, 4, 48, 48, generator=torch.Generator().manual_seed(3))


def near_the_middle(values):
    """The mean of ten steps around the middle of the schedule."""
    return values[STEPS // 2 - 5 : STEPS // 2 + 5].mean().item()


def test_edit_friendly_maps_are_strong_and_take_each_other_back(picture):
    measures = statistics(invert(gaussian(), picture, Plan(ddpm_sigmas(STEPS))))
    assert near_the_middle(measures.variance) == pytest.approx(15, rel=0.08)
    assert near_the_middle(measures.correlation) == pytest.approx(-0.5, abs=0.02)
    assert ((-0.58 < measures.correlation) & (measures.correlation < -0.44)).all()


def test_the_variance_grows_with_the_number_of_steps(picture):
    fine = statistics(invert(gaussian(), picture, Plan(ddpm_sigmas(2 * STEPS))))
    coarse = statistics(invert(gaussian(), picture, Plan(ddpm_sigmas(STEPS))))
    assert fine.variance[STEPS] / coarse.variance[STEPS // 2] == pytest.approx(1.93, abs=0.1)


def test_native_maps_are_white_noise(picture):
    sigmas = ddpm_sigmas(STEPS)
    measures = statistics(invert(gaussian(), picture, Plan(sigmas), path=native_path(picture, Plan(sigmas))))
    assert near_the_middle(measures.variance) == pytest.approx(1, abs=0.06)
    assert measures.correlation.abs().max() < 0.05


def test_angles_of_the_toy_of_the_paper():
    """Figure 4: data N((10, 10), I), 40 steps; each item of the batch is a point of the plane."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = (1 - betas).cumprod(0)[torch.arange(40).flip(0) * 25 + 1]
    sigmas = torch.cat((((1 - abar) / abar).sqrt(), torch.zeros(1, dtype=torch.float64)))
    points = 10 + torch.randn(2000, 2, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    native = native_path(points, Plan(sigmas))
    for path, mean, obtuse in ((None, 119, 0.74), (native, 90, 0.5)):
        maps = invert(gaussian(10.0), points, Plan(sigmas), path=path)
        ups = torch.tensor([step.up for step in maps.steps[:-1]]).view(-1, 1, 1)
        degrees = angles(maps.residuals[:-1].flatten(2) / ups)
        assert degrees.mean().item() == pytest.approx(mean, abs=1)
        assert (degrees > 90).double().mean().item() == pytest.approx(obtuse, abs=0.01)


def test_angles_of_known_vectors():
    vectors = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[0.0, -1.0]], [[1.0, -1.0]]])
    assert_close(angles(vectors), torch.tensor([[90.0], [180.0], [45.0]]), rtol=0, atol=0.05)


def made_up(z, sigmas, skipped=0):
    """Maps whose z (T, B, C, H, W) is the given one; the last step, to 0, adds no noise."""
    zeros = torch.zeros(len(sigmas), *z.shape[1:])
    maps = NoiseMaps(sigmas, zeros, zeros[1:].double(), zeros[1:], skipped=skipped)
    ups = torch.tensor([step.up for step in maps.steps], dtype=torch.float64)
    return NoiseMaps(sigmas, zeros, ups.view(-1, 1, 1, 1, 1) * z, zeros[1:], skipped=skipped)


def test_measures_of_known_maps_over_all_items_and_cells():
    first = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    other = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    z = torch.stack((first + 5, -2 * first, other, other))
    measures = statistics(made_up(z, [8.0, 4.0, 2.0, 1.0, 0.0], skipped=6))
    unbiased = {"correction": 0}
    variances = torch.stack([v.var(**unbiased) for v in (first, 2 * first, other)])
    assert_close(measures.variance, variances, rtol=1e-12, atol=0)
    assert_close(
        measures.correlation,
        torch.stack(
            [torch.tensor(-1.0).double(), torch.corrcoef(torch.stack((-first.flatten(), other.flatten())))[0, 1]]
        ),
    )
    assert_close(measures.times, torch.tensor([40.0, 30.0, 20.0], dtype=torch.float64))


def test_two_steps_with_noise_are_enough(picture):
    measures = statistics(invert(gaussian(), picture, Plan(ddpm_sigmas(3))))
    assert (len(measures.variance), len(measures.correlation), len(measures.times)) == (2, 1, 2)


def test_equal_vectors_have_no_angle_between_them():
    """Rounding takes some cosines above 1."""
    vectors = torch.randn(1, 1000, 3, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1)
    assert angles(vectors).max() < 0.1
    assert torch.isfinite(angles(-vectors)).all()


def test_maps_without_noise_are_refused(picture):
    with pytest.raises(ValueError, match="two steps or more; got 0 of 10 steps, eta 0"):
        statistics(invert(gaussian(), picture, Plan(ddpm_sigmas(10), eta=0.0)))
    with pytest.raises(ValueError, match="got 1 of 2 steps, eta 1"):
        statistics(invert(gaussian(), picture, Plan(ddpm_sigmas(2))))
