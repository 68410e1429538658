"""Shift and colour: what moves, what stays, and how the pushes add up."""

import dataclasses

import pytest
import torch
from fakes import ddpm_sigmas, flow_sigmas, gaussian, network, sigmas_of
from torch.testing import assert_close

from ddpm_core import NoiseMaps, Plan, Process, invert, paint, parse_color, push_color, replay, shift
from ddpm_core.edits.color import luminance

X0 = torch.randn(2, 4, 8, 10, generator=torch.Generator().manual_seed(1))
TENSORS = ("latents", "residuals", "predictions")


def maps(steps=20, denoise=None, mask=None, **settings):
    return invert(denoise or network(0.2), X0, Plan(ddpm_sigmas(steps), **settings), mask=mask)


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -2), (-4, 5)])
def test_shift_there_and_back_with_wrap_is_the_identity(dx, dy):
    mask = torch.zeros(1, 1, 8, 10)
    mask[..., 2:5, 1:3] = 1
    source = maps(mask=mask)
    back = shift(shift(source, dx, dy, fill="wrap"), -dx, -dy, fill="wrap")
    for name in (*TENSORS, "mask"):
        assert torch.equal(getattr(back, name), getattr(source, name))


def test_a_wrapped_shift_of_the_maps_is_a_wrapped_shift_of_the_picture():
    """The fake network is a circular convolution, so it commutes with the shift."""
    source = maps()
    assert_close(
        replay(network(0.2), shift(source, 3, -2, fill="wrap")), X0.roll((-2, 3), dims=(-2, -1)), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(("dx", "dy"), [(3, 2), (-2, -1)])
def test_shift_moves_what_stays_in_the_frame_and_fills_the_rest(dx, dy):
    source = maps(mask=torch.zeros(1, 1, 8, 10))
    moved = shift(source, dx, dy, seed=4)
    rows = slice(max(dy, 0), 8 + min(dy, 0))
    columns = slice(max(dx, 0), 10 + min(dx, 0))
    vacated = torch.ones(8, 10, dtype=torch.bool)
    vacated[rows, columns] = False
    for name in TENSORS:
        expected = getattr(source, name).roll((dy, dx), dims=(-2, -1))
        assert torch.equal(getattr(moved, name)[..., rows, columns], expected[..., rows, columns])
    assert torch.equal(moved.mask[0, 0], vacated.float())
    assert not torch.equal(
        moved.latents[0][..., vacated], source.latents[0].roll((dy, dx), dims=(-2, -1))[..., vacated]
    )


def test_vacated_cells_get_noise_of_each_steps_own_scale():
    x0 = torch.zeros(1, 4, 64, 64)
    source = invert(gaussian(), x0, Plan(ddpm_sigmas(20)))
    moved = shift(source, 63, 0, seed=1)
    for step, residual, latent in zip(moved.steps, moved.residuals, moved.latents):
        assert residual[..., :63].std().item() == pytest.approx(step.up, rel=0.05)
        assert latent[..., :63].std().item() == pytest.approx(step.sigma, rel=0.05)
    assert torch.equal(moved.residuals[-1][..., :63], torch.zeros(1, 4, 64, 63))
    again, other = shift(source, 63, 0, seed=1), shift(source, 63, 0, seed=2)
    assert torch.equal(moved.residuals, again.residuals)
    assert not torch.equal(moved.residuals, other.residuals)


@pytest.mark.parametrize("process", list(Process))
def test_vacated_cells_are_drawn_number_by_number_from_the_seed(process):
    """The path alpha x_0 + sigma e around the border's x_0, then z: the 2R numbers after T."""
    sigmas = sigmas_of(process, 9)
    source = invert(network(process=process), X0, Plan(sigmas, process=process, skip=2))
    moved = shift(source, 3, 0, seed=4)
    drawn = torch.randn(9 + 2 * 7, 4, 8, 10, generator=torch.Generator().manual_seed(5))[9:, ..., :3].double()
    for i, step in enumerate(source.steps):
        border = X0[1, ..., :1]
        expected = step.alpha * border + step.sigma * drawn[i]
        assert_close(moved.latents[i, 1, ..., :3], expected.float(), rtol=1e-5, atol=1e-5)
        assert_close(moved.residuals[i, 1, ..., :3], step.up * drawn[7 + i])


def test_the_fresh_noise_is_not_the_paths_own_when_the_seeds_are_equal():
    source = invert(gaussian(), torch.zeros(1, 4, 64, 64), Plan(ddpm_sigmas(20), seed=3))
    start = shift(source, 8, 0, seed=3).latents[0]
    drawn, beside = start[..., :8].flatten(), start[..., 8:16].flatten()
    assert torch.corrcoef(torch.stack((drawn, beside)))[0, 1].abs() < 0.1


def test_the_vacated_path_is_drawn_around_the_pictures_border():
    x0 = torch.full((1, 4, 32, 32), 3.0)
    source = invert(network(process=Process.FLOW), x0, Plan(flow_sigmas(10), process=Process.FLOW))
    moved = shift(source, 12, 0, seed=1)
    for step, latent, prediction, before in zip(moved.steps, moved.latents, moved.predictions, source.predictions):
        assert latent[..., :12].mean().item() == pytest.approx(3 * step.alpha, abs=0.1)
        assert torch.equal(prediction[..., :12], before[..., :1].expand(-1, -1, -1, 12))
    assert torch.equal(moved.latents[-1], x0)


def test_the_items_of_a_shifted_batch_have_noise_of_their_own():
    moved = shift(maps(), 5, 0, seed=7)
    alone = shift(invert(network(0.2), X0[1:], Plan(ddpm_sigmas(20), seed=1)), 5, 0, seed=8)
    assert_close(alone.residuals[:, 0], moved.residuals[:, 1], rtol=1e-5, atol=1e-5)


def test_shift_of_a_video_moves_every_frame():
    x0 = torch.randn(1, 4, 3, 6, 6)
    source = invert(network(), x0, Plan(ddpm_sigmas(5)))
    assert torch.equal(shift(source, 1, 2, fill="wrap").latents[-1], x0.roll((2, 1), dims=(-2, -1)))
    assert shift(source, 1, 2).latents.shape == source.latents.shape


@pytest.mark.parametrize(("arguments", "words"), [((10, 0), r"\|x\| < 10 .*got x 10"), ((0, -8), "got y -8")])
def test_a_shift_out_of_the_frame_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        shift(maps(3), *arguments)


def test_an_unknown_fill_is_refused():
    with pytest.raises(ValueError, match="fill must be one of noise, wrap; got 'mirror'"):
        shift(maps(3), 1, 0, fill="mirror")


def test_a_push_changes_z_by_s_b_times_the_distance_inside_the_window_only():
    source = maps(100)
    target, mask = torch.ones(1, 4, 8, 10), torch.zeros(1, 1, 8, 10)
    mask[..., :5] = 0.5
    pushed = push_color(source, target, mask, strength=0.05, start=70, end=20)
    change = pushed.noise - source.noise
    for i, step in enumerate(source.steps):
        t = 100 - i
        inside = 20 <= t <= 70
        expected = 0.05 * mask * (target - source.predictions[i]) * step.up * inside
        assert_close(change[i], expected.double().expand_as(change[i]), rtol=1e-5, atol=1e-6)
    assert torch.equal(pushed.latents, source.latents)


@pytest.mark.parametrize("skip", [0, 6, 9])
def test_a_push_of_skipped_maps_is_the_push_of_all_of_them_from_there_on(skip):
    """Times and strength count on the whole schedule, whatever is skipped."""
    target, mask = torch.ones(1, 4, 8, 10), torch.full((1, 1, 8, 10), 0.5)
    source = maps(20)
    pushed = push_color(source.skip(skip), target, mask, strength=0.1, start=70, end=20)
    expected = push_color(source, target, mask, strength=0.1, start=70, end=20).skip(skip)
    assert torch.equal(pushed.pull, expected.pull)
    assert torch.equal(pushed.residuals, expected.residuals)
    for i, step in enumerate(pushed.steps):
        inside = 20 <= 100 * (20 - skip - i) / 20 <= 70
        assert_close(pushed.pull[i, 0, 0], torch.full((8, 10), 0.1 * 5**0.5 * 0.5 * step.up * inside))


@pytest.mark.parametrize("steps", [20, 50, 100])
def test_the_same_strength_is_the_same_push_at_any_number_of_steps(steps):
    denoise = gaussian(0.0, 1.0)
    source = invert(denoise, torch.zeros(1, 4, 8, 8), Plan(ddpm_sigmas(steps)))
    pushed = push_color(source, torch.ones(1, 4, 8, 8), torch.ones(1, 1, 8, 8), strength=0.1)
    moved = replay(denoise, pushed).mean().item()
    reference = invert(denoise, torch.zeros(1, 4, 8, 8), Plan(ddpm_sigmas(200)))
    reference = (
        replay(denoise, push_color(reference, torch.ones(1, 4, 8, 8), torch.ones(1, 1, 8, 8), strength=0.1))
        .mean()
        .item()
    )
    assert 0.1 < moved < 1.0
    assert moved == pytest.approx(reference, rel=0.25)


def test_a_push_is_s_b_times_the_distance_of_the_runs_own_prediction():
    """z_t += s B (M - x0_hat), with the x0_hat of the replay under its own prompt."""
    source, denoise = maps(100), network(0.8)
    target, mask = torch.ones(1, 4, 8, 10), torch.zeros(1, 1, 8, 10)
    mask[..., 2:7] = 0.7
    x = source.latents[0].double()
    for i, (step, residual) in enumerate(zip(source.steps, source.residuals)):
        x0_hat = denoise(x, torch.full((len(x),), step.sigma, dtype=torch.float64))
        z = residual / step.up + 0.1 * mask * (target - x0_hat) * (20 <= 100 - i <= 70) if step.up else 0
        x = step.mean(x, x0_hat, None) + (step.up * z if step.up else residual)
    assert_close(replay(denoise, push_color(source, target, mask, strength=0.1)), x.float(), rtol=0, atol=1e-5)


def test_a_stronger_push_comes_nearer_and_does_not_overshoot():
    denoise = gaussian(0.0, 1.0)
    source = invert(denoise, torch.zeros(1, 4, 8, 8), Plan(ddpm_sigmas(50)))
    reached = [
        replay(denoise, push_color(source, torch.ones(1, 4, 8, 8), torch.ones(1, 1, 8, 8), strength=s)).mean().item()
        for s in (0.1, 0.3, 1.0)
    ]
    assert 0.1 < reached[0] < reached[1] < reached[2] < 1.01


@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize("process", list(Process))
def test_no_strength_overshoots_at_few_steps(steps, process):
    denoise, sigmas = gaussian(0.0, 1.0, process), sigmas_of(process, steps)
    pushed = invert(denoise, torch.zeros(1, 4, 8, 8), Plan(sigmas, process=process))
    for _ in range(2):
        pushed = push_color(pushed, torch.ones(1, 4, 8, 8), torch.ones(1, 1, 8, 8), strength=5.0)
        assert 0.4 < replay(denoise, pushed).mean() < 1.05


def test_pushes_add_up_and_travel_with_the_maps(tmp_path):
    source, denoise = maps(30), network(0.5)
    left, right = torch.zeros(1, 1, 8, 10), torch.zeros(1, 1, 8, 10)
    left[..., :4], right[..., 6:] = 1, 1
    one, other = torch.ones(1, 4, 8, 10), -torch.ones(1, 4, 8, 10)
    both = push_color(push_color(source, one, left, strength=0.2), other, right, strength=0.2)
    change = replay(denoise, both) - replay(denoise, source)
    assert change[..., 1:3].mean() > 0.1
    assert change[..., 7:9].mean() < -0.1
    both.save(tmp_path / "maps.safetensors")
    assert_close(replay(denoise, NoiseMaps.load(tmp_path / "maps.safetensors")), replay(denoise, both))
    moved = shift(both, 3, 0, fill="wrap")
    assert torch.equal(moved.pull, both.pull.roll(3, -1))
    assert not shift(both, 3, 0).pull[..., :3].any()
    assert torch.equal(both.skip(10).pull, both.pull[10:])
    with pytest.raises(ValueError, match="pull must be 0 or more; got values from -"):
        dataclasses.replace(both, pull=-both.pull)
    with pytest.raises(ValueError, match=r"pull must have shape \(30, 2, 1, 8, 10\)"):
        dataclasses.replace(both, pull=both.pull[1:])


def test_a_push_leaves_the_outside_of_the_mask_alone_where_the_model_mixes_nothing():
    denoise = gaussian(0.0, 1.0)
    source = invert(denoise, X0, Plan(ddpm_sigmas(20)))
    mask = torch.zeros(2, 1, 8, 10)
    mask[..., 3:6, 3:6] = 1
    edited = replay(denoise, push_color(source, torch.full_like(X0, 2.0), mask, strength=0.2))
    outside = ~mask.bool().expand_as(X0)
    assert_close(edited[outside], X0[outside], rtol=0, atol=1e-5)
    before, after = (X0 - 2)[~outside].abs().mean(), (edited - 2)[~outside].abs().mean()
    assert after < 0.8 * before


TARGET, MASK = torch.zeros(1, 4, 8, 10), torch.ones(1, 1, 8, 10)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((TARGET[..., 1:], MASK), {}, r"target must have the maps' shape .*got \(1, 4, 8, 9\)"),
        ((TARGET, MASK[..., 1:]), {}, r"mask must have shape .*got \(1, 1, 8, 9\)"),
        ((TARGET, 0 * MASK), {}, "mask must not be empty"),
        ((TARGET, MASK), {"start": 20, "end": 70}, "got start 20, end 70"),
        ((TARGET, MASK), {"start": 99.5, "end": 96}, "No step lies between start 99.5 and end 96"),
    ],
)
def test_bad_pushes_are_refused(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        push_color(maps(20), *arguments, **options)


def test_a_push_without_settings_is_the_papers():
    source = maps(20)
    expected = push_color(source, TARGET, MASK, strength=0.05, start=70, end=20)
    assert torch.equal(push_color(source, TARGET, MASK).pull, expected.pull)


def test_a_masks_and_a_targets_dtype_do_not_change_the_maps():
    source = maps(20)
    expected = push_color(source, TARGET + 1, MASK)
    for dtype in (torch.float64, torch.float16, torch.bool):
        pushed = push_color(source, TARGET.double() + 1, MASK.to(dtype))
        assert pushed.pull.dtype == torch.float32
        assert torch.equal(pushed.residuals, expected.residuals)


def test_maps_without_noise_cannot_be_pushed():
    with pytest.raises(ValueError, match="eta 0"):
        push_color(maps(5, eta=0.0), TARGET, MASK)


@pytest.mark.parametrize(
    ("text", "rgb"),
    [
        ("#ff0000", (1, 0, 0)),
        ("00FF00", (0, 1, 0)),
        (" #00f ", (0, 0, 1)),
        ("#333", (0.2, 0.2, 0.2)),
        ("Red", (1, 0, 0)),
        (" forestgreen ", (34 / 255, 139 / 255, 34 / 255)),
        ("rgb(0, 51, 255)", (0, 0.2, 1)),
    ],
)
def test_colours_parse(text, rgb):
    assert parse_color(text) == pytest.approx(rgb)


@pytest.mark.parametrize("text", ["reddish", "#12345", "#gg0000", "", "#1234567"])
def test_colours_that_do_not_parse_are_refused(text):
    with pytest.raises(ValueError, match="written #1e90ff"):
        parse_color(text)


def test_luminance_is_that_of_bt709():
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.5]])
    assert_close(luminance(colors), torch.tensor([[0.2126], [0.7152], [0.0722], [0.5]]))


def test_lights_and_darks_of_a_coloured_picture_are_those_of_its_luminance():
    """Red is lighter than blue; around their mean 0.1424 red goes towards white, blue towards
    black."""
    picture = torch.tensor([[[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]])
    shaded = paint(picture, torch.ones(1, 1, 2, 1), (0.0, 0.4, 1.0), keep_lights=True)
    lighter, darker = (0.2126 - 0.1424) / (1 - 0.1424), 0.0722 / 0.1424
    assert_close(shaded[0, 0, 0], torch.tensor([lighter, 0.4 + 0.6 * lighter, 1.0]))
    assert_close(shaded[0, 0, 1], darker * torch.tensor([0.0, 0.4, 1.0]))


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_black_stays_black_and_white_white_where_lights_and_darks_are_kept(grey):
    """And in an empty mask nothing changes; nothing is divided by 0."""
    picture = torch.full((1, 2, 3, 3), grey)
    shaded = paint(picture, torch.ones(1, 2, 3, 1), (0.2, 0.4, 0.6), keep_lights=True)
    assert_close(shaded, picture)
    assert torch.equal(paint(picture, torch.zeros(1, 2, 3, 1), (0.2, 0.4, 0.6), keep_lights=True), picture)


def test_the_middle_is_the_mean_inside_the_mask_however_small():
    picture = torch.full((1, 2, 3, 3), 0.9)
    picture[0, 0, 0], picture[0, 0, 1] = 0.5, 0.25
    mask = torch.zeros(1, 2, 3, 1)
    mask[0, 0, 0] = 0.01
    shaded = paint(picture, mask, (0.2, 0.4, 0.6), keep_lights=True)
    assert_close(shaded[0, 0, 0], 0.5 + 0.01 * (torch.tensor([0.2, 0.4, 0.6]) - 0.5))
    assert torch.equal(shaded[0, 1], picture[0, 1])


def test_paint_is_flat_or_keeps_lights_and_darks():
    picture = torch.full((2, 2, 2, 3), 0.5)
    picture[0, 0, 0], picture[0, 0, 1] = 0.75, 0.25  # around a mean of 0.5 in the mask
    mask = torch.ones(1, 2, 2, 1)
    mask[0, 1] = 0
    color = (1.0, 0.4, 0.0)
    flat = paint(picture, mask, color)
    assert_close(flat[:, 0], torch.tensor(color).expand(2, 2, 3))
    assert torch.equal(flat[:, 1], picture[:, 1])
    shaded = paint(picture, mask, color, keep_lights=True)
    assert_close(shaded[0, 0, 0], torch.tensor([1.0, 0.7, 0.5]))  # half way to white
    assert_close(shaded[0, 0, 1], torch.tensor([0.5, 0.2, 0.0]))  # half way to black
    assert_close(shaded[1, 0], torch.tensor(color).expand(2, 3))  # the other picture's lights do not matter
    assert torch.equal(shaded[:, 1], picture[:, 1])
