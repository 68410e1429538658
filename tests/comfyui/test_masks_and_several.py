"""Masks read off noise maps, and several edits at once: where they lie, what they cost, and what the
nodes say."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d
from torch.testing import assert_close

from tests.comfyui.rig.graphs import TARGET, graph, node, pictures, refusal, text
from tests.comfyui.rig.server import PACK, RIG


@pytest.fixture(scope="module")
def inside(server, tmp_path_factory):
    """(numbers, sizes of the model's calls, reports) of edits_in_process.py."""
    path = tmp_path_factory.mktemp("masks") / "out.safetensors"
    server.run_script(RIG / "edits_in_process.py", PACK, path)
    with safe_open(path, framework="pt") as file:
        return load_file(path), *(json.loads(file.metadata()[name]) for name in ("sizes", "reports"))


def test_the_mask_lies_where_the_prompts_differ(inside):
    numbers, *_ = inside
    shapes = numbers["shapes"]
    for name, there, elsewhere in (("green 1.0", shapes, 1 - shapes), ("teal", 1 - shapes, shapes)):
        mask = numbers[name]
        assert mask.shape == shapes.shape
        assert (mask * there).sum() / there.sum() > 0.8, name
        assert (mask * elsewhere).sum() / elsewhere.sum() < (mask * there).sum() / there.sum(), name
    assert (numbers["green 1.0"] * (1 - shapes)).sum() / (1 - shapes).sum() < 0.3


def test_all_timesteps_of_both_pictures_take_one_call(inside):
    _, sizes, _ = inside
    assert sizes["green 1.0"] == [2 * 8]
    assert sizes["green 3.5"] == [2 * 2 * 8]
    assert sizes["few"] == [2 * 2 * 3]  # of 12 steps, those at 58, 50 and 42 per cent


def test_the_guidance_of_the_inversion_does_not_move_the_mask(inside):
    """w (t - s) is w times as much everywhere."""
    numbers, *_ = inside
    assert_close(numbers["green 3.5"], numbers["green 1.0"], rtol=0, atol=1e-2)


def test_a_mask_of_ones_own_is_never_left(inside):
    numbers, *_ = inside
    free = numbers["green 3.5"]
    assert_close(numbers["everything"], free)
    assert not numbers["nothing"].any()
    for name in ("half", "inverted with half"):
        assert not numbers[name][..., 104:].any(), name
        assert_close(numbers[name][..., :88], free[..., :88], rtol=0, atol=1e-2)
        assert numbers[name][..., :88].any(), name


@pytest.mark.parametrize("inverted_at", [1.0, 3.5])
def test_the_source_comes_back_inside_its_mask_and_stays_outside(inside, inverted_at):
    numbers, *_ = inside
    assert numbers[f"back {inverted_at}"].max() < 1e-5
    away = avg_pool2d(numbers[f"green {inverted_at}"][:, None], 8) == 0
    changed = numbers["edited"].amax(1, keepdim=True)
    assert changed[away].max() < 1e-5
    assert changed[~away].max() > 0.1


def test_it_says_how_much_changes_and_when_the_prompts_hardly_differ(inside):
    numbers, _, reports = inside
    for name in ("green 1.0", "teal"):
        lines = [f"will change: {100 * mask.mean():.0f} %" for mask in numbers[name]]
        assert reports[name].splitlines() == lines
    assert all("hardly differ" in line for line in reports["source 1.0"].splitlines())
    assert len(reports["source 1.0"].splitlines()) == 2
    assert numbers["source 1.0 shown"].shape[1] > numbers["green 1.0 shown"].shape[1]  # words below the picture


MASK = {"threshold": 0.4, "softness": 0.4, "grow": 0, "start": 100.0, "end": 0.0, "cfg": -1.0}
WIRES = {"model": ["model", 0], "positive": ["target", 0], "negative": ["empty", 0], "vae": ["model", 2]}


def region(**changes):
    """The edit inside the mask of a MaskFromPrompts."""
    mask = node("MaskFromPrompts", **{**WIRES, **MASK, "noise_maps": ["maps", 0], **changes})
    return {"region": mask, "edit": {"mask": ["region", 0]}}


DUAL = {
    "dual": node(
        "DualCFGGuider",
        model=["model", 0],
        cond1=["source", 0],
        cond2=["target", 0],
        negative=["empty", 0],
        cfg_conds=2.0,
        cfg_cond2_negative=3.0,
        style="regular",
    ),
    "levels": node("BasicScheduler", model=["model", 0], scheduler="normal", steps=6, denoise=1.0),
    "others": node(
        "EditFriendlyInvertAdvanced",
        guider=["dual", 0],
        sigmas=["levels", 0],
        latent=["latent", 0],
        skip=0,
        eta=1.0,
        solver="first_order",
        seed=0,
        chunk=0,
    ),
}
LINKED = {"zero": node("PrimitiveFloat", value=0.0), "minus": node("PrimitiveInt", value=-1)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**LINKED, **region(threshold=["zero", 0])}, ["'threshold'", "in (0, 1]", "got 0"]),
        ({**LINKED, **region(grow=["minus", 0])}, ["'grow'", "0 or more cells", "got -1"]),
        (region(start=20.0, end=70.0), ["'start'", "start 20, end 70", "Lower end"]),
        ({**DUAL, **region(noise_maps=["others", 0])}, ["'cfg'", "do not know the cfg", "Give it here"]),
    ],
    ids=lambda value: value[0].strip("'") if isinstance(value, list) else None,
)
def test_what_does_not_fit_is_named(server, changes, words):
    message = refusal(server, **changes)
    assert all(word in message for word in ("Mask From Prompts, input", *words)), message


def test_a_cfg_given_by_hand_takes_the_place_of_what_the_maps_do_not_know(server):
    assert server.queue(graph(**DUAL, **region(noise_maps=["others", 0], cfg=2.0)))


# Several edits at once, and guidance from the source for stock samplers.

INVERTED_AT = pytest.mark.parametrize(("inverted_at", "rows"), [(1.0, 1), (3.5, 2)])
STEPS, PICTURES = 8, 2


def off(inside, one, other="latent"):
    """Greatest difference of two edits, relative to the greatest value of the source's latent."""
    numbers, *_ = inside
    return ((numbers[one] - numbers[other]).abs().max() / numbers["latent"].abs().max()).item()


@INVERTED_AT
def test_edits_to_the_source_itself_and_edits_of_no_strength_give_the_source_back(inside, inverted_at, rows):
    for name in ("to itself", "by nothing"):
        assert off(inside, f"{name} at {inverted_at}") < 1e-5, name
    assert off(inside, f"two at {inverted_at}") > 0.3


def test_an_edit_of_no_strength_changes_nothing_beside_another(inside):
    """Nor does it, having no mask, lift the other's: outside of that the source is kept."""
    numbers, *_ = inside
    assert_close(numbers["left half and nothing"], numbers["left half"], rtol=0, atol=0)


@INVERTED_AT
@pytest.mark.parametrize(
    "name",
    [
        "to itself in an area",
        "to itself in a mask",
        "to itself in late steps",
        "by nothing in an area",
        "by nothing with a control",
        "to itself with a control",
        "to itself in pairs",
        "to itself led from the negative",
    ],
)
def test_parts_of_the_picture_controls_and_patches_that_read_branches_leave_the_source(inside, inverted_at, rows, name):
    assert off(inside, f"{name} at {inverted_at}") < 2e-5


@INVERTED_AT
def test_an_edit_acts_where_and_when_its_prompt_has_words(inside, inverted_at, rows):
    """In late steps less comes of it; a masked prompt is an edit with that mask."""
    at = f"at {inverted_at}"
    assert off(inside, f"green in a mask {at}", f"green where the mask is {at}") < 1e-4
    assert off(inside, f"green in an area {at}") > 0.1
    late, always = (off(inside, f"{name} {at}") for name in ("green in late steps", "two without masks"))
    assert 0.01 < late < always


@INVERTED_AT
def test_every_edit_is_one_row_more(inside, inverted_at, rows):
    """And one along the path for its mask: a guided prediction, as the inversion's."""
    _, sizes, _ = inside
    along = [PICTURES * rows * STEPS]
    for name, masks, edits in (
        ("by nothing", 0, 0),
        ("one", 0, 1),
        ("the same as one", 0, 1),
        ("guider", 0, 1),
        ("two without masks", 0, 2),
        ("one more", 0, 2),
        ("guider of two", 0, 2),
        ("two", 2, 2),
        ("to itself", 2, 2),
    ):
        assert sizes[f"{name} at {inverted_at}"] == masks * along + [PICTURES * (rows + edits)] * STEPS, name


def test_an_edit_out_of_its_window_costs_nothing(inside):
    """Of 12 steps, the first edit has those at 67 and 58 per cent, the second those from 50 on."""
    _, sizes, _ = inside
    assert sizes["early"] == [PICTURES * (2 + 1)] * STEPS
    assert off(inside, "early", "two without masks at 3.5") > 0.01


@INVERTED_AT
def test_one_edit_without_a_mask_is_guidance_from_the_source(inside, inverted_at, rows):
    for other in ("the same as one", "guider"):
        assert off(inside, f"one at {inverted_at}", f"{other} at {inverted_at}") < 1e-6, other
    assert off(inside, f"guider of two at {inverted_at}", f"two at {inverted_at}") < 1e-6


def test_the_mask_of_an_edit_may_be_nothing_half_or_everything(inside):
    numbers, *_ = inside
    assert off(inside, "nowhere") < 1e-6
    assert off(inside, "everywhere", "no mask") < 1e-6
    changed = (numbers["left half"] - numbers["latent"]).abs() / numbers["latent"].abs().max()
    assert changed[..., 12:].max() < 1e-6
    assert changed[..., :12].max() > 0.1


def test_two_edits_both_arrive(inside):
    """The star is nearer to the drawn scene with both changes than to the one whose star is still
    red, and the ground nearer than to the one whose ground is still blue."""
    numbers, *_ = inside
    star = (avg_pool2d(numbers["shapes"][:1, None], 8) > 0.5).expand_as(numbers["true both"])

    def far(name, where):
        return (numbers["two at 1.0"][:1] - numbers[f"true {name}"])[where].square().mean()

    assert far("both", star) < far("other", star)
    assert far("both", ~star) < far("one", ~star)


def test_below_0_an_edit_takes_away_what_its_prompt_adds(inside):
    numbers, *_ = inside
    towards, away = (numbers[name] - numbers["latent"] for name in ("no mask", "away"))
    assert (torch.cosine_similarity(towards.flatten(1), away.flatten(1)) < -0.1).all()


def edits(where="edit", **changes):
    """The edit by way of an AddEdit, in NoiseMapEdit or through an EditGuider."""
    term = {"strength": 5.0, "auto_mask": True, "threshold": 0.4, "start": 100.0, "end": 0.0}
    added = node("AddEdit", **{"positive": ["target", 0], **term, **changes})
    if where == "edit":
        return {"added": added, "edit": {"positive": ["source", 0], "edits": ["added", 0]}}
    guider = {"model": ["model", 0], "source": ["source", 0], "negative": ["empty", 0], "cfg": 5.0}
    return {
        "added": added,
        "guider": node("EditGuider", **guider, noise_maps=["maps", 0], edits=["added", 0]),
        "along": node("NoiseMapSampler", noise_maps=["maps", 0], skip=-1),
        "edit": node(
            "SamplerCustomAdvanced",
            noise=["along", 0],
            guider=["guider", 0],
            sampler=["along", 1],
            sigmas=["along", 2],
            latent_image=["latent", 0],
        ),
    }


def test_sampler_custom_advanced_with_an_edit_guider_gives_the_picture_of_noise_map_edit(server):
    shown = [pictures(server.queue(graph(target=text(TARGET), **edits(where))), "out") for where in ("edit", "guider")]
    assert np.abs(shown[0] - shown[1]).max() <= 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (edits(start=20.0, end=70.0), ["Noise Map Edit, input 'edits'", "start 20, end 70", "Lower end"]),
        (edits(start=100.0, end=90.0), ["Noise Map Edit, input 'edits'", "start 100 and end 90", "begin at 66.6667"]),
        ({**LINKED, **edits(threshold=["zero", 0])}, ["Noise Map Edit, input 'edits'", "in (0, 1]", "got 0"]),
        (edits("guider", start=20.0, end=70.0), ["Edit Guider, input 'edits'", "start 20, end 70"]),
    ],
    ids=["a window that is none", "a window without steps", "a threshold", "a window of a guider"],
)
def test_an_edit_that_does_not_fit_is_named(server, changes, words):
    message = refusal(server, **changes)
    assert all(word in message for word in words), message
