"""pix2pix-zero: directions between sentences, and the step towards the source's cross-attention."""

import copy

import pytest
import torch
from torch.testing import assert_close

from ddpm_core import Plan, Solver, invert, replay
from ddpm_core.attention.pix2pix_zero import direction, distance, sentences
from ddpm_core.checks import BadArgument, NotFinite
from ddpm_core.demo.model import build_pipeline
from ddpm_core.models.stable_diffusion import Pipeline
from ddpm_core.models.zero_shot import LOSS_SCALE, attention_gradient, cross_maps, nearer

SOURCE, TARGET = "a striped red star on a blue background", "a striped green heart on a blue background"
SIDES = ("a red star", "a plain red star"), ("a green heart", "a dotted green heart", "a heart")
X0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    pipe = build_pipeline(tmp_path_factory.mktemp("sd"))
    pipe.unet.eval()
    for layer in pipe.unet.modules():  # with random weights attention is nearly even: sharpen it
        if hasattr(layer, "to_q"):
            layer.to_q.weight.data *= 6
    return Pipeline(pipe)


def in_precision(model, dtype):
    pipe = copy.copy(model.pipe)
    pipe.unet, pipe.text_encoder = (copy.deepcopy(part).to(dtype) for part in (pipe.unet, pipe.text_encoder))
    return Pipeline(pipe)


@pytest.fixture(scope="module")
def exact(model):
    return in_precision(model, torch.float64)


@pytest.fixture(scope="module")
def maps(model):
    return invert(model.denoiser(SOURCE, guidance=1.0), X0, Plan(model.sigmas(6), skip=2, guidance=1.0))


def state(maps, step=1):
    noise = torch.randn(X0.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    path = maps.latents[step].double()
    return path + 0.4 * noise, path, maps.sigmas[step].repeat(2)


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("a cat\n  the   cat sits \n\n->\na dog\n", (("a cat", "the cat sits"), ("a dog",))),
        ("a cat\r\n->\r\na dog -> b", (("a cat",), ("a dog -> b",))),
    ],
)
def test_a_text_has_the_sentences_of_both_sides(text, sides):
    assert sentences(text) == sides


@pytest.mark.parametrize(
    ("text", "words"),
    [("a cat", "got 0"), ("a\n->\nb\n->\nc", "got 2"), ("->\na", "got 0 and 1"), ("a\n->", "1 and 0")],
)
def test_a_text_without_two_sides_is_refused(text, words):
    with pytest.raises(BadArgument, match=words):
        sentences(text)


def test_the_direction_is_the_difference_of_the_means():
    one, other = torch.rand(2, 5, 3), torch.rand(4, 5, 3)
    assert_close(direction(one, other), (sum(other) / 4 - sum(one) / 2)[None])


def test_words_are_moved_in_every_position(model):
    hidden, pooled = model.moved(SOURCE, *SIDES)
    means = [torch.stack([model.embed(text)[0][0] for text in side]).mean(0) for side in SIDES]
    assert_close(hidden, model.embed(SOURCE)[0] + means[1] - means[0], rtol=0, atol=1e-5)
    assert pooled is None
    assert (hidden - model.embed(SOURCE)[0]).abs().amax(-1)[0, 2:].min() > 0.1  # padding too
    assert_close(model.moved(SOURCE, SIDES[0], SIDES[0])[0], model.embed(SOURCE)[0])


def test_words_that_are_embedded_already_do_as_prompts(model):
    x, _, sigma = torch.randn(2, 4, 8, 8), None, torch.full((2,), 3.0)
    words = model.embed(TARGET)
    assert torch.equal(model.denoiser(words, guidance=3.0)(x, sigma), model.denoiser(TARGET, guidance=3.0)(x, sigma))


def test_the_distance_sums_layers_queries_and_words_and_takes_the_mean_over_heads():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.rand(2, 3, n, 5, generator=generator) for n in (4, 9)] for _ in range(2))
    expected = [
        sum((a[i, h] - b[i, h]).square().sum() / 3 for a, b in zip(ours, theirs) for h in range(3)) for i in range(2)
    ]
    assert_close(distance(ours, theirs), torch.stack(expected))


def test_the_maps_are_those_that_the_network_attends_with(model, maps):
    """Of each layer of cross-attention; each map times the values is the layer's own output."""
    x, _, sigma = state(maps)
    layers = [layer for name, layer in model.pipe.unet.named_modules() if name.endswith("attn2")]
    seen = []
    hooks = [layer.register_forward_hook(lambda *call: seen.append(call), with_kwargs=True) for layer in layers]
    words = model.embed(TARGET)
    found = cross_maps(model, (x, words), sigma)
    for hook in hooks:
        hook.remove()
    assert len(found) == len(layers) == len(seen)
    for attention, (layer, _, options, output) in zip(found, seen):
        values = layer.to_v(options["encoder_hidden_states"]).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        attended = layer.to_out[0]((attention @ values).transpose(1, 2).flatten(2))
        assert_close(attended, output, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_finite_differences(exact, maps):
    x, path, sigma = state(maps)
    ours, theirs = exact.embed(TARGET), exact.embed(SOURCE)
    gradient = attention_gradient(exact, (x, ours), (path, theirs), sigma)
    with torch.no_grad():
        references = cross_maps(exact, (path, theirs), sigma)

        def loss(x):
            return distance(cross_maps(exact, (x, ours), sigma), references)

        for seed in range(3):
            way = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            slope = (loss(x + 1e-4 * way) - loss(x - 1e-4 * way)) / 2e-4  # of each picture
            assert_close((gradient * way).sum((1, 2, 3)), slope, rtol=1e-3, atol=1e-7)
    assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize(("dtype", "share"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_the_gradient_survives_half_precision(model, maps, dtype, share):
    x, path, sigma = state(maps)
    rough, gradient = (
        attention_gradient(m, (x, m.embed(TARGET)), (path, m.embed(SOURCE)), sigma)
        for m in (in_precision(model, dtype), model)
    )
    assert (rough - gradient).norm() < share * gradient.norm()


def test_the_loss_is_scaled_in_half_precision_alone(model, maps, monkeypatch):
    """An overflow is named, and only there can it come."""
    monkeypatch.setattr("ddpm_core.models.zero_shot.LOSS_SCALE", LOSS_SCALE * 2**40)
    x, path, sigma = state(maps)
    rows = [((x, m.embed(TARGET)), (path, m.embed(SOURCE))) for m in (model, in_precision(model, torch.float16))]
    assert attention_gradient(model, *rows[0], sigma).isfinite().all()
    with pytest.raises(NotFinite, match="gradient of the cross-attention"):
        attention_gradient(in_precision(model, torch.float16), *rows[1], sigma)


def test_the_gradient_at_a_cell_depends_neither_on_the_size_nor_on_the_batch(exact):
    """A picture of four equal quarters: but for its edges each is the picture."""
    x, path, sigma = state_of(16)
    rows = [(x, exact.embed(TARGET)), (path, exact.embed(SOURCE))]
    gradient = attention_gradient(exact, *rows, sigma)
    tiled = [(part.repeat(1, 1, 2, 2), words) for part, words in rows]
    of_tiles = attention_gradient(exact, *tiled, sigma)
    assert 0.8 < (of_tiles.square().mean() / gradient.square().mean()).sqrt() < 1.25
    alone = attention_gradient(exact, *[(part[1:], words) for part, words in rows], sigma[1:])
    assert_close(gradient[1:], alone)


def state_of(side):
    generator = torch.Generator().manual_seed(3)
    path = 3 * torch.randn(2, 4, side, side, generator=generator, dtype=torch.float64)
    return path + torch.randn(path.shape, generator=generator, dtype=torch.float64), path, torch.full((2,), 2.0)


@pytest.mark.parametrize("source_guidance", [None, 1.0, 2.5])
def test_a_step_ends_where_the_moved_states_would(exact, maps, source_guidance):
    x, path, sigma = state(maps)
    options = {"guidance": 4.0, "source_guidance": source_guidance}
    ours, theirs = exact.embed(TARGET), exact.embed(SOURCE)
    gradient = attention_gradient(exact, (x, ours), (path, theirs), sigma)
    scaled = x / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()  # the network's input, which the published step moves
    scaled = scaled - 0.3 * gradient * (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()
    moved = scaled * (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()
    if source_guidance is None:
        plain = exact.denoiser(TARGET, guidance=4.0)
    else:
        plain = exact.denoiser_from_source(SOURCE, TARGET, **options)
    expected = maps.steps[1].mean(moved, plain(moved, sigma), None)
    x0_hat = nearer(exact, maps, SOURCE, TARGET, rate=0.3, **options)(x, sigma)
    assert_close(maps.steps[1].mean(x, x0_hat, None), expected)
    assert (expected - maps.steps[1].mean(x, plain(x, sigma), None)).abs().max() > 1e-3


def test_the_step_leads_towards_the_sources_attention(exact, maps):
    x, path, sigma = state(maps)
    ours = exact.embed(TARGET)
    with torch.no_grad():
        references = cross_maps(exact, (path, exact.embed(SOURCE)), sigma)
        gradient = attention_gradient(exact, (x, ours), (path, exact.embed(SOURCE)), sigma)
        before, after = (distance(cross_maps(exact, (at, ours), sigma), references) for at in (x, x - 0.05 * gradient))
    assert (after < before).all()


def test_a_rate_of_nothing_changes_no_bit(model, maps):
    off = nearer(model, maps, SOURCE, TARGET, rate=0.0, guidance=4.0)
    assert torch.equal(replay(off, maps), replay(model.denoiser(TARGET, guidance=4.0), maps))


def test_a_direction_to_the_source_itself_gives_the_picture_back(model, maps):
    words = model.moved(SOURCE, SIDES[0], SIDES[0])
    same = nearer(model, maps, SOURCE, words, rate=0.5, guidance=6.0, source_guidance=1.0)
    assert_close(replay(same, maps), X0, rtol=0, atol=1e-4 * X0.abs().max().item())
    other = nearer(model, maps, SOURCE, model.moved(SOURCE, *SIDES), rate=0.5, guidance=6.0, source_guidance=1.0)
    assert (replay(other, maps) - X0).abs().max() > 0.05


def test_it_costs_two_samples_more_than_its_guidance(model, maps):
    samples = []
    hook = model.pipe.unet.register_forward_pre_hook(lambda module, args: samples.append(len(args[0])))
    replay(nearer(model, maps, SOURCE, TARGET, guidance=4.0, source_guidance=1.0), maps)
    hook.remove()
    assert samples == [2, 2, 4] * 4  # two pictures: the source's row, the target's, and both for the prediction


def test_the_processors_are_given_back_even_after_an_error(model, maps):
    before = dict(model.pipe.unet.attn_processors)
    x, path, sigma = state(maps)
    words = model.embed(TARGET)
    attention_gradient(model, (x, words), (path, words), sigma)
    narrow = words[0][..., :5], None
    with pytest.raises(RuntimeError):
        attention_gradient(model, (x, narrow), (path, words), sigma)
    after = model.pipe.unet.attn_processors
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_what_it_cannot_do_is_refused(model):
    second = invert(model.denoiser(SOURCE, guidance=1.0), X0, Plan(model.sigmas(4), solver=Solver.DPMPP_2M_SDE))
    with pytest.raises(BadArgument, match="first order; these maps have dpmpp_2m_sde"):
        nearer(model, second, SOURCE, TARGET, guidance=4.0)
    first = invert(model.denoiser(SOURCE, guidance=1.0), X0, Plan(model.sigmas(2)))
    with pytest.raises(BadArgument, match="rate must be 0 or more; got -1"):
        nearer(model, first, SOURCE, TARGET, rate=-1.0, guidance=4.0)
