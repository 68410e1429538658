"""Maps scaled, mixed and flipped: what stays, what becomes free, and that the noise keeps its
level."""

import dataclasses

import pytest
import torch
from fakes import ddpm_sigmas, flow_sigmas, gaussian, network
from torch.testing import assert_close

from ddpm_core import NoiseMaps, Plan, Process, Solver, flip, invert, mix, push_color, replay, scale, shift

X0, OTHER = torch.randn(2, 2, 4, 8, 10, generator=torch.Generator().manual_seed(1)).unbind()
TENSORS = ("latents", "residuals", "predictions")
SIGMAS = ddpm_sigmas(20)
LEFT = torch.cat((torch.ones(1, 1, 8, 5), torch.zeros(1, 1, 8, 5)), dim=-1)
EXACT = {"rtol": 0, "atol": 1e-5}
BASE = invert(gaussian(), X0, Plan(SIGMAS))
FINE = [invert(gaussian(), x[:1, :, :2, :2], Plan(ddpm_sigmas(200))) for x in (X0, OTHER)]
PROCESSES = pytest.mark.parametrize("process", [Process.VE, Process.FLOW])


def levels(process):
    return flow_sigmas(20) if process is Process.FLOW else SIGMAS


def check_same(a: NoiseMaps, b: NoiseMaps):
    for name in TENSORS:
        assert_close(getattr(a, name), getattr(b, name), **EXACT)


@PROCESSES
@pytest.mark.parametrize("solver", list(Solver))
def test_scale_1_leaves_the_maps_as_they_are(process, solver):
    maps = invert(network(process=process), X0, Plan(levels(process), skip=3, solver=solver, process=process))
    check_same(scale(maps, 1.0, seed=5), maps)


@PROCESSES
@pytest.mark.parametrize("share", [0.0, 0.4, 0.8])
@pytest.mark.parametrize(("start", "end"), [(100, 0), (60, 20)])
def test_the_noise_of_a_scaled_path_keeps_its_level(process, share, start, end):
    """Where the model predicts x_0 itself nothing but noise is in the path, and the replay walks
    the changed one."""
    x0 = torch.zeros(1, 4, 96, 96)
    known = {"denoise": lambda x, sigma: torch.zeros_like(x)}
    maps = scale(
        invert(known["denoise"], x0, Plan(levels(process), process=process)), share, start=start, end=end, seed=1
    )
    walked = []
    replay(known["denoise"], maps, callback=lambda index, x0_hat, x: walked.append(x))
    for step, latent, x in zip(maps.steps, maps.latents[1:], walked, strict=True):
        assert_close(x.float(), latent, **EXACT)
        assert x.std().item() == pytest.approx(step.sigma_next, rel=0.04, abs=1e-6)


@PROCESSES
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_share_of_the_noise_is_kept_and_the_rest_of_its_level_is_new(process, share):
    """n' = s n + sqrt(1 - s^2) m, so the correlation of n' with n is s and with m sqrt(1 - s^2)."""
    source = invert(gaussian(process=process), torch.zeros(1, 4, 64, 64), Plan(levels(process), process=process))
    kept, new = scale(source, share, seed=1), scale(source, 0.0, seed=1)
    for changed, n, m in zip(kept.latents[:-1], source.latents, new.latents):
        rows = torch.stack([changed.flatten(), n.flatten(), m.flatten()])
        assert torch.corrcoef(rows)[0, 1:].tolist() == pytest.approx([share, (1 - share**2) ** 0.5], abs=0.04)


def test_the_new_noise_walks_as_native_sampling_would():
    """At share 0: n_T = sigma_T m_0, n_{t-1} = carry n_t + up m, with the last draws of 3T."""
    maps = invert(gaussian(), torch.zeros_like(X0), Plan(SIGMAS, skip=3, eta=0.6))
    drawn = torch.randn(20 + 3 * 17, 4, 8, 10, generator=torch.Generator().manual_seed(6))[-17:].double()
    walk = [maps.steps[0].sigma * drawn[0]]
    for step, z in zip(maps.steps[:-1], drawn[1:]):
        walk.append(step.carry * walk[-1] + step.up * z)
    assert_close(scale(maps, 0.0, seed=6).latents[:-1, 0], torch.stack(walk).float(), rtol=1e-5, atol=1e-5)


def test_scale_0_is_sampling_from_noise_and_knows_nothing_of_the_picture():
    maps = invert(gaussian(), X0, Plan(SIGMAS))
    other = invert(gaussian(), OTHER, Plan(SIGMAS))
    free, free_too = (replay(gaussian(), scale(m, 0.0, seed=3)) for m in (maps, other))
    assert (free - free_too).abs().mean() < 0.15 * (X0 - OTHER).abs().mean()
    assert (free - X0).abs().mean() > 0.8


def test_the_less_is_kept_the_farther_an_edit_goes():
    maps = invert(network(), X0, Plan(SIGMAS, skip=4))
    away = [(replay(network(1.0), scale(maps, share, seed=2)) - X0).norm().item() for share in (1.0, 0.9, 0.7, 0.4)]
    assert away == sorted(away)
    assert away[-1] > 1.2 * away[0]


def test_steps_outside_the_window_stay():
    maps = invert(network(), X0, Plan(SIGMAS))
    scaled = scale(maps, 0.3, start=50, end=25)  # steps 10 to 15
    changed = [not torch.allclose(a, b, atol=1e-9) for a, b in zip(scaled.residuals, maps.residuals)]
    assert [i for i, c in enumerate(changed) if c] == list(range(9, 16))  # the one before leads to the changed noise
    assert torch.equal(scaled.latents[:10], maps.latents[:10])
    assert torch.equal(scaled.latents[16:], maps.latents[16:])


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_a_chain_of_changes_keeps_the_level_of_the_noise(seeds):
    x0 = torch.zeros(1, 4, 96, 96)
    maps = shift(invert(gaussian(), x0, Plan(SIGMAS)), 70, 0, seed=seeds[0])
    for changed in (scale(scale(maps, 0.8, seed=seeds[0]), 0.8, seed=seeds[1]), scale(maps, 0.7, seed=seeds[1])):
        for step, latent in zip(changed.steps, changed.latents):
            assert latent.std().item() == pytest.approx(step.sigma, rel=0.05)
            assert latent[..., :70].std().item() == pytest.approx(step.sigma, rel=0.05)


@pytest.mark.parametrize("solver", list(Solver))
@pytest.mark.parametrize("later", [0, 5, 15])
def test_scaled_to_nothing_no_skip_brings_the_picture_back(solver, later):
    """Every step then adds what native sampling would add, whatever the picture was."""
    x0 = 3 + torch.zeros(1, 4, 64, 64)
    maps = scale(invert(network(), x0, Plan(SIGMAS, solver=solver)), 0.0, seed=1).skip(later)
    for step, residual in zip(maps.steps[:-1], maps.residuals):
        assert residual.mean().abs().item() < 0.05 * max(step.up, 0.01)
        assert residual.std().item() == pytest.approx(step.up, rel=0.05, abs=1e-3)


def test_a_push_is_scaled_with_the_rest():
    maps = push_color(invert(gaussian(), X0, Plan(SIGMAS)), X0 + 1, torch.ones(1, 1, 8, 10))
    assert_close(scale(maps, 0.5).pull, 0.5 * maps.pull)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]; got"):
        scale(invert(gaussian(), X0, Plan(SIGMAS)), share)


@PROCESSES
def test_nothing_and_all_of_the_other_maps(process):
    a, b = (
        invert(network(process=process), x, Plan(levels(process), skip=skip, process=process, seed=skip))
        for x, skip in ((X0, 2), (OTHER, 5))
    )
    check_same(mix(a, b, 0.0), a.skip(5))
    check_same(mix(a, b, 1.0), b)
    check_same(mix(b, a, 1.0), a.skip(5))


@PROCESSES
def test_a_mix_inside_a_mask_is_a_collage(process):
    """The exact denoiser of Gaussian data looks at every cell alone."""
    denoise = gaussian(process=process)
    a, b = (invert(denoise, x, Plan(levels(process), process=process, seed=i)) for i, x in enumerate((X0, OTHER)))
    mixed = mix(a, b, 1.0, mask=LEFT)
    assert_close(replay(denoise, mixed), torch.where(LEFT > 0, OTHER, X0), **EXACT)
    assert_close(mixed.latents[-1], torch.where(LEFT > 0, OTHER, X0), **EXACT)


@PROCESSES
def test_a_mix_of_the_same_noise_is_the_inversion_of_the_blended_picture(process):
    """So it is for a linear denoiser."""
    denoise = gaussian(process=process)
    a, b, blend = (
        invert(denoise, x, Plan(levels(process), process=process, seed=4)) for x in (X0, OTHER, 0.7 * X0 + 0.3 * OTHER)
    )
    check_same(mix(a, b, 0.3), blend)


def test_a_batch_is_mixed_as_its_items_alone():
    a, b = (invert(gaussian(), x, Plan(SIGMAS, seed=4)) for x in (X0, OTHER))
    other = dataclasses.replace(
        b, latents=torch.cat((b.latents[:, :1], b.latents[:, 1:].flip(-1)), dim=1)
    )  # the second one's noise is another
    together = mix(a, other, 0.5)

    def item(maps):
        return dataclasses.replace(maps, **{name: getattr(maps, name)[:, 1:] for name in TENSORS})

    check_same(mix(item(a), item(other), 0.5), item(together))


@pytest.mark.parametrize("amount", [0.25, 0.5])
def test_a_mix_of_other_noise_keeps_its_level(amount):
    x0 = torch.zeros(1, 4, 96, 96)
    a, b = (invert(gaussian(), x0, Plan(SIGMAS, seed=seed)) for seed in (1, 2))
    for step, latent in zip(a.steps, mix(a, b, amount).latents):
        assert latent.std().item() == pytest.approx(step.sigma, rel=0.04)


def test_a_mix_of_late_steps_has_the_others_maps_there():
    a, b = (invert(network(), x, Plan(SIGMAS, seed=1)) for x in (X0, OTHER))
    mixed = mix(a, b, 1.0, start=50, end=0)
    assert_close(mixed.residuals[:9], a.residuals[:9], **EXACT)
    assert_close(mixed.residuals[10:], b.residuals[10:], **EXACT)
    assert_close(mixed.latents[0], a.latents[0], **EXACT)
    assert_close(mixed.latents[-1], OTHER, **EXACT)


def test_a_mask_is_mixed_as_the_last_step_is_and_a_pull_step_by_step():
    """Some of the steps only: 50 to 25 per cent are steps 10 to 15 of 20."""
    a, b = (invert(gaussian(), x, Plan(SIGMAS)) for x in (X0, OTHER))
    pushed = push_color(b, OTHER + 1, LEFT, start=100, end=0)
    masked = dataclasses.replace(a, mask=LEFT)
    early, late = mix(masked, pushed, 0.5, start=50, end=25), mix(masked, pushed, 0.5, start=25, end=0)
    assert_close(early.mask, LEFT)
    assert_close(late.mask, 0.5 * LEFT + 0.5)
    inside = torch.zeros(20, 1, 1, 1, 1)
    inside[10:16] = 0.5
    assert_close(early.pull, inside * pushed.pull)
    assert_close(early.predictions, torch.lerp(a.predictions, b.predictions, inside))


def test_the_guidance_of_a_mix_is_that_of_both_or_unknown():
    a, b, other = (invert(gaussian(), X0, Plan(SIGMAS, guidance=scale)) for scale in (3.5, 3.5, 1.0))
    assert mix(a, b, 0.5).guidance == 3.5
    assert mix(a, other, 0.5).guidance is None


def test_noise_levels_may_differ_by_rounding_alone():
    a = invert(gaussian(), X0, Plan(SIGMAS))
    b = invert(gaussian(), X0, Plan(SIGMAS.float() * (1 + 5e-5)))
    check_same(mix(a, b, 0.0), a)
    with pytest.raises(ValueError, match="same noise levels"):
        mix(a, invert(gaussian(), X0, Plan(SIGMAS * (1 + 5e-4))), 0.5)


@pytest.mark.parametrize("change", [lambda m, **k: scale(m, 0.5, **k), lambda m, **k: mix(m, FINE[1], 0.5, **k)])
def test_the_window_is_all_steps_if_none_is_given(change):
    """Of 200 steps the last one starts at 0.5 per cent."""
    check_same(change(FINE[0]), change(FINE[0], start=100, end=0))
    shorter = change(FINE[0], start=100, end=1)
    assert not torch.equal(change(FINE[0]).residuals[-1], shorter.residuals[-1])


def test_the_seed_of_a_scale_is_0_if_none_is_given():
    check_same(scale(BASE, 0.5), scale(BASE, 0.5, seed=0))


def test_masks_and_pushes_are_mixed_too():
    a, b = (invert(gaussian(), x, Plan(SIGMAS)) for x in (X0, OTHER))
    pushed = push_color(b, OTHER + 1, LEFT)
    masked = dataclasses.replace(a, mask=LEFT)
    mixed = mix(masked, pushed, 0.25)
    assert_close(mixed.pull, 0.25 * pushed.pull)
    assert_close(mixed.mask, 0.75 * LEFT + 0.25)
    assert mix(a, b, 0.5).mask is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (invert(gaussian(), X0, Plan(ddpm_sigmas(25))), "same total steps; got 20 and 25"),
        (invert(gaussian(), X0, Plan(SIGMAS, eta=0.5)), "same eta; got 1.0 and 0.5"),
        (
            invert(gaussian(), X0, Plan(SIGMAS, solver=Solver.DPMPP_2M_SDE)),
            "same solver; got first_order and dpmpp_2m_sde",
        ),
        (
            invert(gaussian(process=Process.FLOW), X0, Plan(flow_sigmas(20), process=Process.FLOW)),
            "same process; got ve and flow",
        ),
        (
            invert(gaussian(), X0[..., 1:], Plan(SIGMAS)),
            "one size and batch; got 2 of 10 x 8 and 2 of 9 x 8 latent cells",
        ),
        (invert(gaussian(), X0, Plan(1.1 * SIGMAS)), "same noise levels"),
    ],
)
def test_maps_that_do_not_belong_together_are_refused(other, words):
    with pytest.raises(ValueError, match=words):
        mix(BASE, other, 0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"amount": 2.0}, "lie in"),
        ({"amount": 0.5, "start": 10, "end": 20}, "end < start"),
        ({"amount": 0.5, "start": 50, "end": 50}, "end < start"),
        ({"amount": 0.5, "mask": LEFT[0]}, "mask must"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        mix(BASE, BASE, **options)


@pytest.mark.parametrize(("direction", "dim"), [("left-right", -1), ("upside down", -2)])
def test_a_flip_mirrors_the_picture_and_twice_is_the_identity(direction, dim):
    maps = push_color(invert(gaussian(), X0, Plan(SIGMAS), mask=LEFT), X0, LEFT)
    flipped = flip(maps, direction)
    assert_close(replay(gaussian(), flipped), replay(gaussian(), maps).flip(dim), **EXACT)
    assert torch.equal(flipped.mask, LEFT.flip(dim))
    for name in (*TENSORS, "mask", "pull"):
        assert torch.equal(getattr(flip(flipped, direction), name), getattr(maps, name))
    with pytest.raises(ValueError, match="must be one of left-right, upside down; got 'x'"):
        flip(maps, "x")
