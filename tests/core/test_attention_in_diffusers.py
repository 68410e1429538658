"""Attention control in a diffusers UNet: against explicit maps, what it costs, and what it leaves
alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from ddpm_core import Plan, invert, replay
from ddpm_core.attention.local_blend import Blending, LocalBlend
from ddpm_core.attention.masactrl import Mutual
from ddpm_core.attention.prompt_to_prompt import Control
from ddpm_core.attention.words import align
from ddpm_core.demo.model import build_pipeline
from ddpm_core.models.attention import controlled
from ddpm_core.models.stable_diffusion import Pipeline

SOURCE, TARGET = "a striped red star on a blue background", "a dotted green heart on a pale blue background"
X0 = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    pipe = build_pipeline(tmp_path_factory.mktemp("sd"))
    pipe.unet.eval().requires_grad_(False)
    pipe.text_encoder.eval().requires_grad_(False)
    for layer in pipe.unet.modules():  # with random weights attention is nearly even: sharpen it
        if hasattr(layer, "to_q"):
            layer.to_q.weight.data *= 6
    return Pipeline(pipe)


@pytest.fixture(scope="module")
def maps(model):
    return invert(model.denoiser(SOURCE, guidance=1.0), X0, Plan(model.sigmas(10), skip=2, guidance=1.0))


def words_of(model, target=TARGET):
    return align(model.tokens(SOURCE), model.tokens(target))


class Explicit:
    """Attention by explicit maps; the first rows are the source's, the last ones the target's."""

    def __init__(self, change):
        self.change = change

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kwargs):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            layer(part).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, part in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        attention, v = self.change(attention, v, encoder_hidden_states is not None)
        return attn.to_out[0]((attention @ v).transpose(1, 2).flatten(2))


def explicit(model, x, path, sigma, change, prompts):
    """x0_hat of each prompt, the source's row on ``path`` first, all with edited maps."""
    unet = copy.deepcopy(model.pipe.unet)
    unet.set_attn_processor(Explicit(change))
    pipe = copy.copy(model.pipe)
    pipe.unet = unet
    rows = [(path if i == 0 else x, model.embed(prompt)) for i, prompt in enumerate(prompts)]
    return Pipeline(pipe).ask(rows, sigma)


def state(maps, step):
    generator = torch.Generator().manual_seed(step)
    x = maps.latents[step].double() + 0.3 * torch.randn(X0.shape, generator=generator, dtype=torch.float64)
    return x, maps.latents[step].double(), maps.sigmas[step].repeat(len(x))


@pytest.mark.parametrize("step", [1, 3, 6])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_prompt_to_prompt_is_that_of_explicit_maps(model, maps, step, guidance):
    control = Control(words_of(model), cross=0.7, self_=0.3, weights={"heart": 2.0}, windows={"dotted": 0.2})
    x, path, sigma = state(maps, step)
    taken, own = control.coefficients(step, 8)

    def change(attention, v, cross):
        attention = attention.clone()
        theirs, ours = attention[:2], attention[-2:]
        if cross and step < 0.7 * 8:
            attention[-2:] = theirs @ taken + ours * own
        if not cross and step < 0.3 * 8 and attention.shape[-1] <= (8 // 4) * (12 // 4):
            attention[-2:] = theirs
        return attention, v

    prompts = [SOURCE, "", TARGET] if guidance != 1 else [SOURCE, TARGET]
    _, *others = explicit(model, x, path, sigma, change, prompts)
    expected = others[0] if guidance == 1 else others[0] + guidance * (others[1] - others[0])
    denoise = controlled(model, maps, SOURCE, TARGET, control=control, guidance=guidance)
    assert_close(denoise(x, sigma), expected, rtol=0, atol=2e-4)
    plain = model.denoiser(TARGET, guidance=guidance)(x, sigma)
    assert ((denoise(x, sigma) - plain).abs().max() > 1e-2) == (step < 0.7 * 8)


@pytest.mark.parametrize("largest", [1, 2, 4])
def test_self_attention_is_taken_over_in_small_layers(model, maps, largest):
    control = Control(words_of(model), cross=0.0, self_=1.0, largest=largest)
    x, path, sigma = state(maps, 4)
    sizes = set()

    def change(attention, v, cross):
        attention = attention.clone()
        if not cross and attention.shape[-1] <= 96 / largest**2:
            sizes.add(attention.shape[-1])
            attention[-2:] = attention[:2]
        return attention, v

    _, expected = explicit(model, x, path, sigma, change, [SOURCE, TARGET])
    denoise = controlled(model, maps, SOURCE, TARGET, control=control, guidance=1.0)
    assert_close(denoise(x, sigma), expected, rtol=0, atol=2e-4)
    assert max(sizes) == 96 // largest**2


def test_mutual_attention_takes_keys_and_values_from_a_layer_on(model, maps):
    x, path, sigma = state(maps, 4)
    seen = []

    def change(attention, v, cross):
        if cross:
            return attention, v
        seen.append(attention.shape[-1])
        return attention, v

    explicit(model, x, path, sigma, change, [SOURCE, TARGET])
    count = len(seen)

    class Keys(Explicit):
        """The first half of the layers as they are."""

        layer = 0

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kwargs):
            if encoder_hidden_states is None:
                Keys.layer += 1
                if Keys.layer - 1 >= count / 2:
                    keys = hidden_states.clone()
                    keys[-2:] = hidden_states[:2]
                    q, k, v = (
                        layer(part).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                        for layer, part in ((attn.to_q, hidden_states), (attn.to_k, keys), (attn.to_v, keys))
                    )
                    attended = F.scaled_dot_product_attention(q, k, v)
                    return attn.to_out[0](attended.transpose(1, 2).flatten(2))
            return super().__call__(attn, hidden_states, encoder_hidden_states, **kwargs)

    pipe = copy.copy(model.pipe)
    pipe.unet = copy.deepcopy(model.pipe.unet)
    pipe.unet.set_attn_processor(Keys(change))
    _, expected = Pipeline(pipe).ask([(path, model.embed(SOURCE)), (x, model.embed(TARGET))], sigma)
    denoise = controlled(model, maps, SOURCE, TARGET, mutual=Mutual(start=0.5, layer=0.5), guidance=1.0)
    assert_close(denoise(x, sigma), expected, rtol=0, atol=2e-4)
    early = state(maps, 3)
    plain = model.denoiser(TARGET, guidance=1.0)
    assert torch.equal(denoise(early[0], early[2]), plain(early[0], early[2]))


@pytest.mark.parametrize("cross", [0.0, 0.6])
def test_a_local_blend_is_that_of_explicit_maps_step_by_step(model, maps, cross):
    """x_next <- source + mask (x_next - source), with the published mask of the edited maps of the
    layers of 1/4 of the latent's size (2 x 3), summed over heads, layers and steps."""
    words = words_of(model)
    control = Control(words, cross=cross, self_=0.0)
    blending = Blending(LocalBlend(words, ("star", "heart"), threshold=0.995), 8, (8, 12))
    denoise = controlled(model, maps, SOURCE, TARGET, control=control, blending=blending, guidance=1.0)
    after = []
    replay(denoise, maps, local=blending.mask, callback=lambda i, x0_hat, x: after.append(x))
    sums, masks = [0.0, 0.0], []
    chosen = words.source.positions("star"), words.target.positions("heart")
    x = maps.latents[0].double()
    for i, step in enumerate(maps.steps):
        taken, own = (part.to(torch.float32) for part in control.coefficients(i, 8))

        def change(attention, v, is_cross, taken=taken, own=own):
            if not is_cross:
                return attention, v
            attention = attention.clone()
            attention[-2:] = attention[:2] @ taken + attention[-2:] * own
            if attention.shape[2] == 6:
                for k, rows in enumerate((attention[:2], attention[-2:])):
                    sums[k] = sums[k] + rows[..., chosen[k]].sum(-1).sum(1).view(2, 1, 2, 3)
            return attention, v

        sigma = maps.sigmas[i].repeat(2)
        _, x0_hat = explicit(model, x, maps.latents[i].double(), sigma, change, [SOURCE, TARGET])
        x = step.mean(x, x0_hat, None) + maps.residuals[i]
        if i >= 0.2 * 8:
            whole = [F.interpolate(F.max_pool2d(s, 3, 1, 1), size=(8, 12)) for s in sums]
            mask = torch.stack([w / w.amax((2, 3), keepdim=True) > 0.995 for w in whole]).any(0)
            source = maps.latents[i + 1].double()
            x = source + mask * (x - source)
            masks.append(mask)
        assert_close(after[i], x, rtol=0, atol=2e-3)
        x = after[i]
    assert {value for mask in masks for value in mask.unique().tolist()} == {True, False}


@pytest.mark.parametrize("source_guidance", [None, 1.0, 2.5])
def test_the_same_prompt_gives_the_picture_back(model, source_guidance):
    w0 = 3.0 if source_guidance is None else source_guidance
    maps = invert(model.denoiser(SOURCE, guidance=w0), X0, Plan(model.sigmas(8)))
    kept = {"control": Control(words_of(model, SOURCE), cross=0.8, self_=0.5), "mutual": Mutual(0.2, 0.3)}
    options = {"guidance": 3.0, "source_guidance": source_guidance}
    same = controlled(model, maps, SOURCE, SOURCE, **kept, **options)
    assert_close(replay(same, maps), X0, rtol=0, atol=1e-4 * X0.abs().max().item())


def test_a_control_that_is_off_changes_no_bit(model, maps):
    off = Control(words_of(model), cross=0.0, self_=0.0)
    denoise = controlled(model, maps, SOURCE, TARGET, control=off, guidance=4.0)
    assert torch.equal(replay(denoise, maps), replay(model.denoiser(TARGET, guidance=4.0), maps))
    from_source = controlled(model, maps, SOURCE, TARGET, guidance=4.0, source_guidance=1.0)
    plain = model.denoiser_from_source(SOURCE, TARGET, guidance=4.0, source_guidance=1.0)
    assert torch.equal(replay(from_source, maps), replay(plain, maps))


@pytest.mark.slow
def test_the_papers_combination_costs_412_samples(model):
    """100 steps, skip 12, guidance 3.5 and 9: two rows a step each way, and the source's for 60
    steps. The authors' code: 552."""
    samples = []
    hook = model.pipe.unet.register_forward_pre_hook(lambda module, args: samples.append(len(args[0])))
    maps = invert(model.denoiser(SOURCE, guidance=3.5), X0[:1, :, :, :8], Plan(model.sigmas(100), skip=12))
    replay(controlled(model, maps, SOURCE, TARGET, control=Control(words_of(model)), guidance=9.0), maps)
    hook.remove()
    assert sum(samples) == 412
    assert samples[-88:] == [3] * 60 + [2] * 28


def test_the_processors_are_given_back_even_after_an_error(model, maps):
    before = dict(model.pipe.unet.attn_processors)
    denoise = controlled(model, maps, SOURCE, TARGET, control=Control(words_of(model)), guidance=1.0)
    replay(denoise, maps)
    x, _, sigma = state(maps, 0)
    with pytest.raises(RuntimeError):
        denoise(x[..., :3, :3], sigma)  # fits neither the path nor the network
    after = model.pipe.unet.attn_processors
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_processors_that_are_there_go_on_working(model, maps):
    """What another processor adds to every row is still there, on top of the control."""

    class Louder:
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, attn, hidden_states, *args, **kwargs):
            return 1.5 * self.inner(attn, hidden_states, *args, **kwargs)

    pipe = copy.copy(model.pipe)
    pipe.unet = copy.deepcopy(model.pipe.unet)
    louder = {name: Louder(inner) for name, inner in pipe.unet.attn_processors.items()}
    pipe.unet.set_attn_processor(louder)
    theirs = Pipeline(pipe)
    x, _, sigma = state(maps, 0)
    control = Control(words_of(model))
    changed = controlled(theirs, maps, SOURCE, TARGET, control=control, guidance=1.0)(x, sigma)
    assert not torch.allclose(changed, theirs.denoiser(TARGET, guidance=1.0)(x, sigma), atol=1e-3)
    assert not torch.allclose(
        changed, controlled(model, maps, SOURCE, TARGET, control=control, guidance=1.0)(x, sigma), atol=1e-3
    )


def test_the_words_of_a_prompt_are_found_in_its_tokens(model):
    tokens = model.tokens("a red fox, sits")
    assert [text for text, _ in tokens.words] == ["a", "red", "fox", ",", "sits"]
    assert tokens.start == (0,)
    assert tokens.length == model.pipe.tokenizer.model_max_length
    flat = [p for _, at in tokens.words for p in at]
    assert flat == list(range(1, len(flat) + 1))
