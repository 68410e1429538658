"""Masks read off the path: where they lie, what they cost, and what they refuse."""

import pytest
import torch
from fakes import Counting, ddpm_sigmas, gaussian, network
from torch.testing import assert_close

from ddpm_core import Plan, invert
from ddpm_core.checks import BadArgument
from ddpm_core.measure.pictures import kept_in_grey
from ddpm_core.regions import QUANTILE, contrast, difference, mask_of

X0 = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(1))


def only_in(rows, columns, by):
    """Another prompt: the prediction differs by ``by`` in a rectangle."""

    def denoise(x, sigma):
        change = torch.zeros_like(x)
        change[..., rows, columns] = by
        return gaussian()(x, sigma) + change

    return denoise


def test_the_difference_is_the_mean_over_the_steps_of_its_norm_over_the_channels():
    source, target = network(0.2), network(0.9)
    maps = invert(source, X0.double(), Plan(ddpm_sigmas(6), skip=1))
    expected = 0
    for step, x in zip(maps.steps, maps.latents):
        sigma = x.new_full((2,), step.sigma)
        expected = expected + (target(x, sigma) - source(x, sigma)).square().sum(1, keepdim=True).sqrt() / 5
    assert_close(difference(target, maps), expected.float())


def test_the_difference_of_a_prompt_to_itself_is_nothing():
    maps = invert(network(0.2), X0, Plan(ddpm_sigmas(6)))
    assert difference(network(0.2), maps).max() < 1e-5
    assert contrast(difference(network(0.2), maps), maps).max() < 1e-5


def test_only_the_steps_of_the_window_are_asked_for_a_chunk_at_a_time():
    maps = invert(network(), X0, Plan(ddpm_sigmas(10), skip=2))
    target, seen = Counting(network(1.0)), []
    half = difference(target, maps, start=60, end=30, chunk=3, callback=lambda i, x0_hat, x: seen.append(i))
    assert target.sizes == [3 * 2, 2]  # the steps at 60, 50, 40 and 30 per cent, 2 pictures each
    assert seen == [0, 1, 2, 3]
    first, last = (difference(network(1.0), maps, start=s, end=e) for s, e in ((60, 50), (40, 30)))
    assert_close(half, (first + last) / 2)


def test_the_mask_lies_where_the_prompts_differ():
    maps = invert(gaussian(), X0, Plan(ddpm_sigmas(8)))
    amount = difference(only_in(slice(3, 9), slice(4, 12), 0.5), maps)
    mask = mask_of(amount, threshold=0.5, softness=0)
    inside = torch.zeros(2, 1, 12, 16)
    inside[..., 3:9, 4:12] = 1
    inside[..., [3, 3, 8, 8], [4, 11, 4, 11]] = 0  # a corner has 4 of its 9 neighbours inside
    assert torch.equal(mask, inside)
    assert torch.equal(mask_of(amount, threshold=0.4, softness=0)[..., [3, 8], [4, 11]], torch.ones(2, 1, 2))


def test_a_picture_is_measured_by_itself():
    amount = torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(2))
    alone = mask_of(amount[1:])
    amount[0] *= 1000
    assert torch.equal(mask_of(amount)[1:], alone)
    assert_close(mask_of(0.01 * amount), mask_of(amount))


def test_the_ramp_has_its_width_around_the_threshold():
    share = torch.linspace(0, 1, 41).repeat_interleave(41).view(1, 1, 41, 41)  # even in x, so smooth in between
    mask = mask_of(share, threshold=0.4, softness=0.2)[0, 0, 1:-1, 20]
    largest = mask_scale(share)
    expected = ((share[0, 0, 1:-1, 20] / largest - 0.3) / 0.2).clamp(0, 1)
    assert_close(mask, expected)
    assert 0 < mask[12] < 1


def mask_scale(amount):
    smooth = torch.nn.functional.avg_pool2d(amount, 3, stride=1, padding=1, count_include_pad=False)
    return smooth.flatten().quantile(QUANTILE)


def test_a_mask_grows_by_cells_in_every_direction():
    amount = torch.zeros(1, 1, 20, 20)
    amount[..., 8:12, 8:12] = 1
    narrow, wide = (mask_of(amount, threshold=0.99, softness=0, grow=grow) for grow in (0, 2))
    shifts = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    assert torch.equal(wide, torch.stack([narrow.roll(by, dims=(-2, -1)) for by in shifts]).amax(0))
    assert wide.sum() > narrow.sum() > 0


def test_the_frames_of_a_video_have_planes_of_their_own():
    amount = torch.zeros(1, 1, 3, 12, 12)
    amount[:, :, 1, 4:8, 4:8] = 1
    mask = mask_of(amount, threshold=0.5, softness=0, grow=1)
    assert mask.shape == amount.shape
    assert not mask[:, :, [0, 2]].any()
    assert mask[:, :, 1].any()


def test_contrast_is_in_deviations_of_the_picture():
    maps = invert(gaussian(), X0, Plan(ddpm_sigmas(8)))
    weak, strong = (contrast(difference(only_in(slice(0, 12), slice(0, 16), by), maps), maps) for by in (0.1, 0.4))
    assert_close(strong, 4 * weak)
    deviation = maps.predictions.movedim(1, 0).flatten(1).std(1)
    assert_close(weak, 0.1 / deviation, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 0.0}, "threshold must lie in .0, 1.; got 0"),
        ({"threshold": 1.5}, "got 1.5"),
        ({"softness": -0.1}, "softness must be 0 or more; got -0.1"),
        ({"grow": -1}, "grow must be 0 or more cells; got -1"),
    ],
)
def test_what_no_mask_can_be_is_refused(options, words):
    with pytest.raises(BadArgument, match=words) as caught:
        mask_of(torch.ones(1, 1, 8, 8), **options)
    assert [caught.value.argument] == list(options)


def test_what_a_mask_keeps_is_grey_and_darker():
    pictures = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(2, 1, 4, 6)
    mask[..., :3] = 1
    shown = kept_in_grey(pictures, mask)
    assert_close(shown[..., :3], pictures[..., :3])
    assert_close(shown[..., 3:], (pictures[..., 3:].mean(1, keepdim=True) / 2).expand(-1, 3, -1, -1))
