"""How the commands name an edit, and that each name does what it says."""

import argparse

import pytest
import torch
from fakes import ddpm_sigmas, network
from torch.testing import assert_close

from ddpm_core import Plan, invert, replay
from ddpm_core.attention.masactrl import Mutual
from ddpm_core.attention.prompt_to_prompt import Control
from ddpm_core.attention.words import align
from ddpm_core.demo.model import FOLDER
from ddpm_core.edits.faithful import faithful
from ddpm_core.lab import options
from ddpm_core.lab.calls import UNetCalls
from ddpm_core.lab.diffedit import diffedit_mask, threshold
from ddpm_core.lab.editing import (
    Mode,
    add_edit_options,
    edited_latent,
    edited_latents,
    latent_of_edits,
    mask_for,
    masked,
)
from ddpm_core.models.attention import controlled
from ddpm_core.models.stable_diffusion import Edit, Pipeline
from ddpm_core.models.zero_shot import nearer
from ddpm_core.noise import path_noise
from ddpm_core.regions import difference, mask_of

SOURCE, TARGET = "a striped red star on a blue background", "a striped green star on a blue background"
SIDES = ("a red star", "a red moon"), ("a green star",)
X0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return Pipeline.load(FOLDER)


@pytest.fixture(scope="module")
def maps(model):
    return invert(model.denoiser(SOURCE, guidance=1.0), X0, Plan(model.sigmas(4), skip=1, guidance=1.0))


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    options.add_model_options(parser)
    options.add_inversion_options(parser)
    add_edit_options(parser)
    args = parser.parse_args(arguments)
    options.fill_in(args)
    return args


def test_the_options_say_the_mode(tmp_path):
    assert Mode.of(parsed()) == Mode(3.0, 1.0)  # with the demo model's guidance
    (tmp_path / "d.txt").write_text("a red star\na red moon\n->\na green star\n")
    args = parsed(
        *("--cfg", "4", "--negative", "x", "--guidance", "source", "--mask", "auto", "--threshold", "0.3"),
        *("--attention", "zero", "--rate", "0.2", "--direction", str(tmp_path / "d.txt")),
    )
    expected = Mode(4.0, 1.0, "x", "source", mask="auto", threshold=0.3, attention="zero", rate=0.2, direction=SIDES)
    assert Mode.of(args) == expected
    args = parsed("--cross", "0.1", "--self-attention", "0.2", "--start", "0.3", "--layer", "0.4")
    assert Mode.of(args) == Mode(3.0, 1.0, cross=0.1, self_attention=0.2, start=0.3, layer=0.4)


@pytest.mark.parametrize(
    ("more", "steps", "skip", "mode"),
    [
        (("--preset", "p2p"), 100, 12, Mode(9.0, 3.5, attention="p2p")),
        (("--preset", "h-edit"), 50, 15, Mode(7.5, 1.0, guidance="source")),
        (("--preset", "h-edit", "--steps", "20", "--guidance", "negative"), 20, 6, Mode(7.5, 1.0)),
        (("--preset", "p2p", "--attention", "none", "--skip", "3"), 100, 3, Mode(9.0, 3.5)),
        (("--preset", "quality"), 100, 36, Mode(15.0, 3.5)),
        (("--preset", "fast"), 10, 4, Mode(15.0, 3.5)),
    ],
)
def test_a_preset_sets_what_is_not_said(more, steps, skip, mode):
    args = parsed("--model", "a folder", *more)
    assert (args.steps, args.skip, Mode.of(args)) == (steps, skip, mode)


@pytest.mark.parametrize("name", ["guidance", "mask", "attention"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be one of .*; got 'x'"):
        Mode(3.0, **{name: "x"})


def test_every_mode_does_what_it_says(model, maps):
    words = align(model.tokens(SOURCE), model.tokens(TARGET))
    own = align(model.tokens(SOURCE), model.tokens(SOURCE))
    moved = model.moved(SOURCE, *SIDES)
    guided, from_source = {"guidance": 4.0}, {"guidance": 4.0, "source_guidance": 1.0}
    cases = {
        Mode(4.0): model.denoiser(TARGET, guidance=4.0),
        Mode(4.0, negative="a moon"): model.denoiser(TARGET, guidance=4.0, negative="a moon"),
        Mode(4.0, guidance="source"): model.denoiser_from_source(SOURCE, TARGET, **from_source),
        Mode(4.0, direction=SIDES): model.denoiser(moved, guidance=4.0),
        Mode(4.0, attention="p2p", cross=0.9, self_attention=0.4): controlled(
            model, maps, SOURCE, TARGET, control=Control(words, 0.9, 0.4), **guided
        ),
        Mode(4.0, attention="p2p", guidance="source", direction=SIDES): controlled(
            model, maps, SOURCE, moved, control=Control(own), **from_source
        ),
        Mode(4.0, attention="masactrl", start=0.4, layer=0.2): controlled(
            model, maps, SOURCE, TARGET, mutual=Mutual(0.4, 0.2), **guided
        ),
        Mode(4.0, attention="zero", rate=0.3): nearer(model, maps, SOURCE, TARGET, rate=0.3, **guided),
    }
    results = []
    for mode, denoise in cases.items():
        results.append(edited_latent(mode, model, maps, SOURCE, TARGET))
        assert torch.equal(results[-1], replay(denoise, maps)), mode
    assert all((one - other).abs().max() > 1e-3 for i, one in enumerate(results) for other in results[:i])


def test_masks_and_faithfulness_compose(model, maps):
    amount = difference(model.denoiser(TARGET, guidance=1.0), maps)
    mask = mask_of(amount, threshold=0.3, softness=0.2, grow=1)
    half = torch.zeros(1, 1, 8, 8)
    half[..., 4:] = 1
    both = masked(masked(maps, half), mask)
    assert torch.equal(both.mask, torch.minimum(mask, half))
    mode = Mode(4.0, mask="auto", threshold=0.3, softness=0.2, grow=1, faithfulness=0.1)
    edited = edited_latent(mode, model, masked(maps, half), SOURCE, TARGET)
    assert torch.equal(edited, replay(model.denoiser(TARGET, guidance=4.0), faithful(both, 0.1)))
    assert torch.equal(edited[..., :4], X0[..., :4])


OTHER = "a striped red star on a yellow background"


def test_edits_at_once_start_from_the_source(model, maps):
    edits = [(TARGET, 4.0), (OTHER, -2.0)]
    together, one, back, nothing = (
        latent_of_edits(Mode(9.0), model, maps, SOURCE, wanted)
        for wanted in (edits, edits[:1], [(SOURCE, 7.0), (SOURCE, -3.0)], [(TARGET, 0.0), (OTHER, 0.0)])
    )
    for same in (back, nothing):
        assert_close(same, X0, rtol=0, atol=1e-4)
    alone = model.denoiser_from_source(SOURCE, TARGET, guidance=4.0, source_guidance=1.0)
    assert torch.equal(one, replay(alone, maps))
    s, t, o = (model.denoiser(words, guidance=1.0) for words in (SOURCE, TARGET, OTHER))
    expected = replay(lambda *at: s(*at) + 4 * (t(*at) - s(*at)) - 2 * (o(*at) - s(*at)), maps)
    assert_close(together, expected, rtol=0, atol=1e-3)


def test_edits_at_once_have_each_its_own_mask_and_change_nothing_outside(model, maps):
    half = torch.zeros(1, 1, 8, 8)
    half[..., 4:] = 1
    mode = Mode(9.0, mask="auto", threshold=0.6, softness=0.0, faithfulness=0.1)
    edits = [(TARGET, 4.0), (OTHER, 3.0)]
    masks = [mask_for(mode, model, maps, SOURCE, target) for target, _ in edits]
    wanted = [Edit(*edit, mask) for edit, mask in zip(edits, masks)]
    denoise = model.denoiser_of_edits(SOURCE, wanted, source_guidance=1.0)
    within = masked(masked(maps, half), torch.maximum(*masks))
    edited = latent_of_edits(mode, model, masked(maps, half), SOURCE, edits)
    assert torch.equal(edited, replay(denoise, faithful(within, 0.1)))
    away = (within.mask == 0).expand_as(X0)
    assert torch.equal(edited[away], X0[away])
    assert (edited - X0)[~away].abs().max() > 1e-3


def test_the_mask_sees_the_direction_and_the_guidance_of_the_inversion(model, maps):
    seen = []

    class Watched:
        def moved(self, *arguments):
            return ("moved", *arguments)

        def denoiser(self, goal, **more):
            seen.append((goal, more))
            return network(0.5)

    mode = Mode(4.0, 2.5, "x", mask="auto", direction=SIDES)
    mask_for(mode, Watched(), maps, SOURCE, TARGET)
    assert seen == [(("moved", SOURCE, *SIDES), {"guidance": 2.5, "negative": "x"})]


STAIR = torch.arange(1.0, 7.0)  # of six columns


class Two:
    """A model of two prompts, whose predictions differ in a rectangle, more from column to column."""

    def __init__(self):
        self.asked = []

    def sigmas(self, steps):
        return ddpm_sigmas(steps)

    def denoiser(self, prompt, guidance):
        def denoise(x, sigma):
            self.asked.append((prompt, guidance, len(x), set(sigma.tolist())))
            change = torch.zeros_like(x)
            change[..., 2:5, 1:7] = float(prompt == TARGET) * (STAIR + 0.1 * x[..., 2:5, 1:7].abs())
            return 0.3 * x + change

        return denoise


def test_diffedits_mask_is_that_of_its_formula():
    x0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    model = Two()
    maps = invert(network(), x0, Plan(ddpm_sigmas(20), skip=12, seed=5))
    mask = diffedit_mask(model, maps, SOURCE, TARGET)
    sigma = ddpm_sigmas(20)[10]
    noisy = x0 + sigma * path_noise(x0.shape, 5, 10).double()
    distance = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    distance[..., 2:5, 1:7] = (STAIR + 0.1 * noisy[..., 2:5, 1:7].abs()).mean((0, 2))[:, None]
    for picture, mask_of_picture in zip(distance, mask):
        most = 3 * picture.mean()
        assert torch.equal(mask_of_picture.bool(), picture.clamp(max=most) / most > 0.5)
    assert mask.unique().tolist() == [0, 1]
    assert model.asked == [(prompt, 1.0, 20, {sigma.item()}) for prompt in (SOURCE, TARGET)]


def test_the_threshold_is_half_of_three_means_of_each_picture():
    amount = torch.zeros(2, 1, 4, 4)
    amount[0, 0, 0] = torch.tensor([16.0, 4.0, 2.2, 1.8])  # mean 1.5: 2.25 is the threshold
    amount[1] = 100 * amount[0]
    assert threshold(amount)[0, 0, 0].tolist() == [1, 1, 0, 0]
    assert torch.equal(threshold(amount)[1], threshold(amount)[0])
    assert not threshold(torch.zeros(1, 1, 4, 4)).any()  # prompts that agree


def test_diffedit_masks_an_edit(model, maps):
    edited = edited_latent(Mode(4.0, mask="diffedit"), model, maps, SOURCE, TARGET)
    mask = diffedit_mask(model, maps, SOURCE, TARGET)
    assert_close(edited, replay(model.denoiser(TARGET, guidance=4.0), maps, mask=mask))
    assert 0 < mask.mean() < 1


def test_a_batch_needs_word_maps_that_are_alike(model):
    captions = [SOURCE, "a plain teal moon on a pink background"]
    greens = [TARGET, "a plain green moon on a pink background"]
    x0 = X0.repeat(2, 1, 1, 1)
    maps = invert(model.denoiser(captions, guidance=1.0), x0, Plan(model.sigmas(2)))
    mode = Mode(4.0, attention="p2p")
    both = edited_latent(mode, model, maps, captions, greens)
    alone = edited_latent(mode, model, invert_one(model, captions[1], maps), captions[1], greens[1])
    assert_close(both[1:], alone, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="take over from each other alike"):
        edited_latent(mode, model, maps, captions, [TARGET, "a plain green moon"])


def invert_one(model, caption, maps):
    path = maps.latents[:, 1:]
    return invert(model.denoiser(caption, guidance=1.0), X0, Plan(model.sigmas(2)), path=path)


@pytest.mark.parametrize(
    ("mode", "sizes"),
    [
        (Mode(4.0), [6, 8, 8]),  # four edits of two rows; the second begins a step later
        (Mode(1.0), [3, 4, 4]),
        (Mode(4.0, 3.0, guidance="source"), [9, 12, 12]),
        (Mode(4.0, mask="auto", faithfulness=0.1), [3, 2, 3, 3, 6, 8, 8]),
        (Mode(4.0, attention="p2p"), None),
    ],
)
def test_several_targets_in_common_calls_are_the_edits_one_by_one(model, maps, mode, sizes):
    targets = [TARGET, "a plain red moon on a blue background", SOURCE, "a striped red star on a green background"]
    several = [maps, maps.skip(2), maps, maps]
    expected = [edited_latent(mode, model, one, SOURCE, target) for one, target in zip(several, targets)]
    with UNetCalls(model.pipe.unet) as calls:
        results = list(edited_latents(mode, model, several, SOURCE, targets))
    for result, one in zip(results, expected):
        assert_close(result, one, rtol=0, atol=2e-4)  # float32 in batches of another size
    assert sizes is None or calls.sizes == sizes
    assert len(list(edited_latents(mode, model, several[2:], SOURCE, targets[2:], chunk=1))) == 2
