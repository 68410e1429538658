"""Masks read off noise maps: where they lie, what they cost, and what the node says."""

import json

import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d
from torch.testing import assert_close

from tests.comfyui.rig.graphs import graph, node, refusal
from tests.comfyui.rig.server import PACK, RIG


@pytest.fixture(scope="module")
def inside(server, tmp_path_factory):
    """(numbers, sizes of the model's calls, reports) of masks_in_process.py."""
    path = tmp_path_factory.mktemp("masks") / "out.safetensors"
    server.run_script(RIG / "masks_in_process.py", PACK, path)
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
