"""Inversion and replay: exactness, independence of how the work is split, and the properties of the
maps."""

import pytest
import torch
from fakes import Counting, ddpm_sigmas, flow_sigmas, gaussian, network, sigmas_of
from torch.testing import assert_close

from ddpm_core import Plan, Process, Solver, auxiliary_path, invert, replay
from ddpm_core.checks import BadArgument
from ddpm_core.denoise import call, ran_out_of_memory, state_device
from ddpm_core.inversions.ddim import invert_ddim

SHAPES = {"square": (4, 8, 8), "tall": (4, 12, 6), "video": (3, 3, 6, 8)}


def picture(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_same_picture(actual, expected, bound=1e-5):
    """Within ``bound`` of the largest value of the picture, everywhere."""
    assert_close(actual, expected, rtol=0, atol=bound * expected.abs().max().item())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("chunk", [1, 8])
@pytest.mark.parametrize("solver", list(Solver))
def test_the_source_comes_back_from_every_skip(shape, batch, chunk, solver):
    x0, denoise = picture(batch, *shape), network(0.2)
    maps = invert(denoise, x0, Plan(ddpm_sigmas(20), solver=solver), chunk=chunk)
    for skip in range(20):
        assert_same_picture(replay(denoise, maps, skip=skip), x0)


@pytest.mark.parametrize("process", list(Process))
@pytest.mark.parametrize("solver", list(Solver))
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_source_comes_back_for_every_eta_and_process(process, solver, eta):
    x0, denoise = picture(2, 4, 8, 8), network(-0.1, process)
    sigmas = sigmas_of(process, 24)
    for skip in (0, 9):
        maps = invert(denoise, x0, Plan(sigmas, skip=skip, solver=solver, eta=eta, process=process))
        assert_same_picture(replay(denoise, maps), x0)


@pytest.mark.parametrize("solver", list(Solver))
def test_in_double_precision_the_source_comes_back_to_rounding(solver):
    x0, denoise = picture(1, 4, 8, 8, dtype=torch.float64), network(0.2)
    maps = invert(denoise, x0, Plan(ddpm_sigmas(50), solver=solver))
    assert maps.latents.dtype == torch.float64
    assert_same_picture(replay(denoise, maps), x0, bound=1e-12)


def test_a_schedule_that_does_not_end_at_0_gives_the_source_too():
    x0, denoise = picture(1, 4, 8, 8), network(0.2)
    maps = invert(denoise, x0, Plan(ddpm_sigmas(20)[:-1]))
    assert maps.sigmas[-1] > 0
    assert_same_picture(replay(denoise, maps), x0)


@pytest.mark.parametrize("solver", list(Solver))
def test_inverting_from_skip_on_gives_the_maps_that_skip_gives(solver):
    x0, denoise = picture(2, 4, 8, 8), network(0.2)
    whole = invert(denoise, x0, Plan(ddpm_sigmas(20), solver=solver, seed=5)).skip(7)
    part = invert(denoise, x0, Plan(ddpm_sigmas(20), solver=solver, seed=5, skip=7))
    assert (whole.skipped, whole.total_steps) == (part.skipped, part.total_steps) == (7, 20)
    for name in ("sigmas", "latents", "residuals", "predictions"):
        assert_close(getattr(whole, name), getattr(part, name), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", list(Solver))
def test_a_batch_equals_its_items(solver):
    x0, target = picture(3, 4, 8, 8), network(0.9)
    together = invert(network(0.2), x0, Plan(ddpm_sigmas(12), seed=40, solver=solver))
    edited = replay(target, together, skip=3)
    for i in range(3):
        alone = invert(network(0.2), x0[i : i + 1], Plan(ddpm_sigmas(12), seed=40 + i, solver=solver))
        assert_close(alone.residuals, together.residuals[:, i : i + 1], rtol=1e-5, atol=1e-5)
        assert_close(replay(target, alone, skip=3), edited[i : i + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [2, 5, 8, 64])
def test_the_chunk_does_not_change_the_maps(chunk):
    x0 = picture(2, 4, 8, 8)
    assert_close(
        invert(network(), x0, Plan(ddpm_sigmas(13)), chunk=chunk).residuals,
        invert(network(), x0, Plan(ddpm_sigmas(13)), chunk=1).residuals,
    )


def test_the_same_seed_gives_the_same_maps_and_another_seed_others():
    x0 = picture(1, 4, 8, 8)
    first, again, other = (invert(network(), x0, Plan(ddpm_sigmas(10), seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.residuals, again.residuals)
    assert not torch.equal(first.latents, other.latents)


def test_the_greatest_seed_serves_a_batch_too():
    maps = invert(network(), picture(1, 4, 8, 8).expand(2, -1, -1, -1), Plan(ddpm_sigmas(5), seed=2**64 - 1))
    assert_close(maps.latents[:, 1:], invert(network(), picture(1, 4, 8, 8), Plan(ddpm_sigmas(5), seed=0)).latents)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    invert(network(), picture(1, 4, 8, 8), Plan(ddpm_sigmas(5)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_path_is_the_picture_plus_independent_noise_of_each_level():
    sigmas, x0 = ddpm_sigmas(10), picture(2, 4, 64, 64, dtype=torch.float64)
    path = auxiliary_path(x0, Plan(sigmas, seed=3))
    assert torch.equal(path[-1], x0)
    noise = (path[:-1] - x0) / sigmas[:-1].view(-1, 1, 1, 1, 1)
    assert_close(noise.std((1, 2, 3, 4)), torch.ones(10).double(), rtol=0, atol=0.03)
    neighbours = (noise[1:] * noise[:-1]).mean((1, 2, 3, 4))
    assert_close(neighbours, torch.zeros(9).double(), rtol=0, atol=0.03)


@pytest.mark.parametrize("process", list(Process))
def test_the_path_is_drawn_number_by_number_from_the_seed(process):
    """15 steps and one cell: so short a draw is not the beginning of a longer one."""
    x0 = picture(2, 1, 1, 1)
    sigmas = sigmas_of(process, 15)
    plan = Plan(sigmas, skip=4, seed=6, process=process)
    noise = torch.stack([torch.randn(15, 1, 1, 1, generator=torch.Generator().manual_seed(s)) for s in (6, 7)], 1)
    levels = sigmas[:-1].view(-1, 1, 1, 1, 1)
    expected = process.alpha(levels) * x0 + levels * noise
    assert_close(auxiliary_path(x0, plan), torch.cat((expected[4:].float(), x0[None])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_hold_the_predictions_on_the_path_and_the_plans_settings(dtype):
    plan = Plan(ddpm_sigmas(7), skip=2, eta=0.4, solver=Solver.DPMPP_2M_SDE, seed=5, guidance=3.5)
    maps = invert(network(), picture(2, 4, 8, 8, dtype=dtype), plan)
    assert maps.predictions.dtype == dtype
    for prediction, latent, step in zip(maps.predictions, maps.latents, maps.steps):
        expected = network()(latent.double(), torch.full((2,), step.sigma, dtype=torch.float64))
        assert_close(prediction, expected.to(dtype))
    settings = ("eta", "solver", "process", "seed", "guidance")
    assert [getattr(maps, name) for name in settings] == [getattr(plan, name) for name in settings]
    assert (maps.skipped, maps.total_steps) == (2, 7)


def test_a_mask_and_a_path_may_have_another_dtype_than_the_latents():
    x0, plan = picture(1, 4, 8, 8), Plan(ddpm_sigmas(7))
    path = auxiliary_path(x0, plan)
    mask = torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps = invert(network(), x0, plan, mask=mask, path=path.double())
    assert maps.latents.dtype == maps.mask.dtype == torch.float32
    assert torch.equal(maps.latents, path)
    assert_close(replay(network(0.9), maps), replay(network(0.9), maps, mask=mask))


def test_how_far_a_path_misses_the_picture_is_said():
    x0, plan = picture(1, 4, 8, 8), Plan(ddpm_sigmas(7))
    path = auxiliary_path(x0, plan)
    path[-1, 0, 0, 0, 0] -= 0.25
    with pytest.raises(BadArgument, match=r"differs by up to 0\.25\."):
        invert(network(), x0, plan, path=path)


@pytest.mark.parametrize(
    "words",
    ["CUDA out of memory", "DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED when calling"],
)
def test_a_lack_of_memory_is_known_by_its_words_too(words):
    assert ran_out_of_memory(RuntimeError(words))
    assert ran_out_of_memory(torch.cuda.OutOfMemoryError("in other words"))
    assert not ran_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_the_edit_is_the_difference_form_that_needs_no_maps():
    """VE, first order: y <- y - kappa (eps(y + sigma e; target) - eps(x_0 + sigma e; source)),
    kappa = sigma - sqrt(sigma_next^2 - up^2)."""
    x0, source, target = picture(1, 4, 8, 8, dtype=torch.float64), network(0.1), network(0.8)
    for eta in (0.0, 0.5, 1.0):
        maps = invert(source, x0, Plan(ddpm_sigmas(30), skip=8, eta=eta))
        y = x0
        for step, latent in zip(maps.steps, maps.latents):
            sigma = torch.full((1,), step.sigma, dtype=torch.float64)
            noisy = y + (latent - x0)
            eps_target = (noisy - target(noisy, sigma)) / step.sigma
            eps_source = (latent - source(latent, sigma)) / step.sigma
            y = y - (step.sigma - (step.sigma_next**2 - step.up**2) ** 0.5) * (eps_target - eps_source)
        assert_same_picture(replay(target, maps), y, bound=1e-10)


def test_eta_0_on_a_flow_process_is_flowedit():
    """FlowEdit (Kulikov et al. 2412.08629, algorithm 1): the edit follows the difference of two
    velocities at one noise."""
    x0 = picture(1, 4, 8, 8, dtype=torch.float64)
    source, target = network(0.1, Process.FLOW), network(0.8, Process.FLOW)
    maps = invert(source, x0, Plan(flow_sigmas(28), skip=4, eta=0, process=Process.FLOW))
    z_fe = x0
    for step, z_src in zip(maps.steps, maps.latents):
        t = torch.full((1,), step.sigma, dtype=torch.float64)
        z_tar = z_fe + z_src - x0
        velocity_source = (z_src - source(z_src, t)) / step.sigma
        velocity_target = (z_tar - target(z_tar, t)) / step.sigma
        z_fe = z_fe + (step.sigma_next - step.sigma) * (velocity_target - velocity_source)
    assert_same_picture(replay(target, maps), z_fe, bound=1e-10)


def test_mask_0_keeps_the_source_mask_1_is_no_mask_and_half_is_both():
    x0, source, target = picture(2, 4, 8, 8), network(0.1), network(1.0)
    maps = invert(source, x0, Plan(ddpm_sigmas(20), skip=5))
    free = replay(target, maps)
    assert torch.equal(replay(target, maps, mask=torch.zeros(1, 1, 8, 8)), x0)
    assert_close(replay(target, maps, mask=torch.ones(2, 1, 8, 8)), free)
    half = torch.zeros(1, 1, 8, 8)
    half[..., 4:] = 1
    edited = replay(target, maps, mask=half)
    assert torch.equal(edited[..., :4], x0[..., :4])
    assert (edited[..., 4:] - x0[..., 4:]).abs().max() > 0.1
    inverted_with = invert(source, x0, Plan(ddpm_sigmas(20), skip=5), mask=half)
    assert torch.equal(replay(target, inverted_with), edited)


@pytest.mark.parametrize(("steps", "variance"), [(50, 14.8), (100, 27.9)])
def test_variance_and_correlation_of_the_maps_of_gaussian_data(steps, variance):
    """High variance, about in proportion to the number of steps, and neighbours that pull against
    each other; native maps: 1 and 0."""
    z = invert(gaussian(), picture(1, 4, 64, 64), Plan(ddpm_sigmas(steps)[:-1])).z
    assert z[2 * steps // 5].var().item() == pytest.approx(variance, rel=0.06)
    middle = z[steps // 4 : 3 * steps // 4].flatten(1)
    correlation = torch.nn.functional.cosine_similarity(middle[1:], middle[:-1], dim=1)
    assert ((correlation > -0.53) & (correlation < -0.43)).all()


def test_running_out_of_memory_halves_the_chunk_and_goes_on():
    error = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)

    def small(x, sigma):
        if len(x) > 3:
            raise error("CUDA out of memory")
        return network()(x, sigma)

    counting = Counting(small)
    maps = invert(counting, picture(1, 4, 8, 8), Plan(ddpm_sigmas(12)), chunk=8)
    assert counting.sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    assert_close(maps.residuals, invert(network(), picture(1, 4, 8, 8), Plan(ddpm_sigmas(12))).residuals)
    with pytest.raises(error):
        invert(small, picture(4, 4, 8, 8), Plan(ddpm_sigmas(12)), chunk=8)


def test_other_errors_of_the_model_are_not_taken_for_a_lack_of_memory():
    def broken(x, sigma):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    counting = Counting(broken)
    with pytest.raises(RuntimeError, match="mat1"):
        invert(counting, picture(1, 4, 8, 8), Plan(ddpm_sigmas(12)))
    assert counting.sizes == [8]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_of_half_precision_give_the_source_back(dtype):
    def half(x, sigma):
        return network(0.2)(x.to(dtype), sigma)

    x0 = picture(2, 4, 8, 8)
    maps = invert(half, x0, Plan(ddpm_sigmas(20), skip=4))
    assert maps.latents.dtype == torch.float32
    assert torch.equal(replay(half, maps), x0)


@pytest.mark.parametrize("solver", list(Solver))
def test_a_device_without_double_precision_gives_the_source_back(solver):
    """The state stays on the CPU, and the model gets float32 on its own device; "meta" stands for a
    device that is not there to compute."""
    seen = set()

    def elsewhere(x, sigma):
        seen.add((x.device.type, x.dtype, sigma.dtype))
        return network(0.2)(torch.zeros(x.shape), torch.ones(len(x)))

    assert state_device("mps") == state_device("xpu") == torch.device("cpu")
    x = torch.randn(2, 4, 8, 8).double()
    assert call(elsewhere, x, torch.ones(2).double(), "meta").dtype == torch.float64
    assert seen == {("meta", torch.float32, torch.float32)}

    def single(x, sigma):
        return network(0.2)(x.float(), sigma.float())

    x0 = picture(2, 4, 8, 8)
    maps = invert(single, x0, Plan(ddpm_sigmas(50), skip=5, solver=solver))
    assert_same_picture(replay(single, maps), x0)


def test_callbacks_see_every_step_in_order():
    seen = []
    maps = invert(
        network(),
        picture(2, 4, 8, 8),
        Plan(ddpm_sigmas(11)),
        chunk=4,
        callback=lambda i, p, x: seen.append((i, p.shape, x.shape)),
    )
    replay(network(), maps, skip=4, callback=lambda i, p, x: seen.append((i, p.shape, x.shape)))
    shape = torch.Size((2, 4, 8, 8))
    assert seen == [(i, shape, shape) for i in [*range(11), *range(7)]]


@pytest.mark.parametrize("chunk", [1, 4])
def test_callbacks_of_an_inversion_get_each_steps_own_prediction_and_latent(chunk):
    seen = []
    plan = Plan(ddpm_sigmas(7), skip=1)
    maps = invert(network(), picture(2, 4, 8, 8), plan, chunk=chunk, callback=lambda *step: seen.append(step))
    assert [i for i, *_ in seen] == list(range(6))
    for i, prediction, latent in seen:
        assert_close(prediction.float(), maps.predictions[i], rtol=1e-6, atol=1e-6)
        assert_close(latent.float(), maps.latents[i], rtol=1e-6, atol=1e-6)


def test_callbacks_of_a_replay_get_each_steps_own_prediction_and_what_it_leads_to():
    seen = []
    maps = invert(network(), picture(2, 4, 8, 8), Plan(ddpm_sigmas(7), skip=1))
    mask = torch.ones(1, 1, 8, 8)
    mask[..., :3] = 0.25
    last = replay(network(0.8), maps, skip=3, mask=mask, callback=lambda *step: seen.append(step))
    x = maps.latents[2].double()
    rest = zip(maps.steps[2:], maps.residuals[2:], maps.latents[3:].double())
    for (prediction, latent), (step, residual, source) in zip([step[1:] for step in seen], rest):
        expected = network(0.8)(x, torch.full((2,), step.sigma, dtype=torch.float64))
        assert_close(prediction, expected, rtol=1e-9, atol=1e-9)
        x = source + mask * (step.mean(x, expected, None) + residual - source)
        assert_close(latent, x, rtol=1e-9, atol=1e-9)
    assert [step[0] for step in seen] == [0, 1, 2, 3]
    assert torch.equal(last, latent.float())


@pytest.mark.parametrize("solver", list(Solver))
def test_every_step_of_a_replay_is_in_double_precision_the_first_too(solver):
    """So the replay is on the stored path to rounding of float64, though latents are float32."""
    walked, types = [], set()

    def denoise(x, sigma):
        types.add((x.dtype, sigma.dtype))
        return network()(x, sigma)

    maps = invert(denoise, picture(2, 4, 8, 8), Plan(ddpm_sigmas(7), solver=solver))
    replay(denoise, maps, callback=lambda i, prediction, latent: walked.append(latent))
    assert types == {(torch.float64, torch.float64)}
    assert_close(torch.stack(walked), maps.latents[1:].double(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"skip": 10}, r"skip must lie in \[0, 9\] for 10 steps; got 10"),
        ({"skip": -1}, "got -1"),
        ({"chunk": 0}, "chunk must be 1 or more.*got 0"),
        ({"eta": 2.0}, "eta must lie in"),
        ({"mask": torch.ones(1, 1, 4, 4)}, r"mask must have shape \(1, 1, 8, 8\).*got \(1, 1, 4, 4\)"),
        ({"path": torch.zeros(11, 1, 4, 8, 8)}, "path must end at x0; its last latent differs by up to"),
        ({"path": torch.zeros(3, 1, 4, 8, 8)}, r"path must have shape \(11, 1, 4, 8, 8\) .*; got \(3, 1, 4, 8, 8\)"),
    ],
)
def test_bad_input_is_refused_with_the_value(options, words):
    plan = {name: options[name] for name in ("skip", "eta") if name in options}
    rest = {name: value for name, value in options.items() if name not in plan}

    def inversion():
        return invert(network(), picture(1, 4, 8, 8), Plan(ddpm_sigmas(10), **plan), **rest)

    with pytest.raises(BadArgument, match=words) as caught:
        inversion()
    assert [caught.value.argument] == list(options)


def test_bad_latents_and_bad_models_are_refused():
    with pytest.raises(ValueError, match=r"x0 must have shape .*got \(4, 8, 8\)"):
        invert(network(), picture(4, 8, 8), Plan(ddpm_sigmas(10)))
    with pytest.raises(ValueError, match="x0 must be finite"):
        invert(network(), torch.full((1, 4, 8, 8), torch.nan), Plan(ddpm_sigmas(10)))
    with pytest.raises(ValueError, match="denoise must return the shape of x"):
        invert(lambda x, sigma: x[:, :2], picture(1, 4, 8, 8), Plan(ddpm_sigmas(10)))
    with pytest.raises(ValueError, match="the model's prediction at sigma .* must be finite; 2048 of 2048 values"):
        invert(lambda x, sigma: x * torch.nan, picture(1, 4, 8, 8), Plan(ddpm_sigmas(10)))
    maps = invert(network(), picture(1, 4, 8, 8), Plan(ddpm_sigmas(10), skip=4))
    with pytest.raises(ValueError, match=r"skip must lie in \[4, 9\].*got 3"):
        replay(network(), maps, skip=3)
    with pytest.raises(ValueError, match="prediction at sigma"):
        replay(lambda x, sigma: x * torch.nan, maps)


@pytest.mark.parametrize("solver", list(Solver))
def test_a_denoiser_that_writes_into_its_input_spoils_nothing(solver):
    plain, x0, plan = network(), picture(2, 4, 6, 8), Plan(ddpm_sigmas(8), skip=2, solver=solver)

    def spoiling(x, sigma):
        x0_hat = plain(x, sigma)
        x.mul_(0)
        return x0_hat

    expected, maps = invert(plain, x0, plan), invert(spoiling, x0, plan)
    for name, tensor in maps.tensors().items():
        assert torch.equal(tensor, getattr(expected, name))
    assert torch.equal(replay(spoiling, maps), replay(plain, maps))
    rival, expected = invert_ddim(spoiling, x0, plan), invert_ddim(plain, x0, plan)
    assert torch.equal(rival.latents, expected.latents)
