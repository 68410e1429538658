"""The model families that people use, in the real ComfyUI: their true classes with tiny random
weights; FlowEdit's own update; and what is refused. Numbers from ComfyUI's own process."""

import json

import pytest

from tests.comfyui.rig.server import PACK, RIG

FAMILIES = [
    "SD 1.5",
    "SD 2 (v)",
    "SDXL",
    "SDXL (v, zero terminal SNR)",
    "SD3",
    "Flux",
    "Chroma",
    "AuraFlow",
    "Lumina 2",
    "Qwen-Image",
    "Wan",
    "Cosmos-Predict2",
    "HunyuanVideo",
]
NEWER = ["Z-Image"]  # than the oldest ComfyUI
every_family = pytest.mark.parametrize("family", FAMILIES + NEWER)


@pytest.fixture(scope="module")
def found(server, tmp_path_factory):
    path = tmp_path_factory.mktemp("families") / "out.json"
    server.run_script(RIG / "families.py", PACK, path)
    return json.loads(path.read_text("utf-8"))


def numbers(found, family):
    if family in NEWER and family not in found["families"]:
        pytest.skip(f"this ComfyUI does not know {family}")
    seen = found["families"][family]
    assert "error" not in seen, seen["error"]
    return seen


def test_every_family_was_tried(found):
    assert list(found["families"])[: len(FAMILIES)] == FAMILIES


@every_family
def test_the_source_comes_back(found, family):
    """At both etas, two at once, with a noise mask, relative to the greatest value."""
    back = {what: apart for what, apart in numbers(found, family).items() if what.startswith("back")}
    assert len(back) == 4
    assert max(back.values()) <= 1e-4, back


@every_family
def test_another_prompt_moves_it(found, family):
    moved = {what: apart for what, apart in numbers(found, family).items() if what.startswith("moved")}
    assert len(moved) == 3
    assert min(moved.values()) > 0.01, moved


@every_family
def test_nothing_changes_outside_a_mask(found, family):
    assert numbers(found, family)["outside the mask"] <= 1e-6


@every_family
def test_a_batch_is_its_items_and_a_chunk_its_timesteps(found, family):
    seen = numbers(found, family)
    assert seen["most rows in a call"] >= 2 * 5, "the timesteps did not share a call"
    for what in ("batch of 2, as alone", "chunk 1, as by itself", "chunk 3, as by itself"):
        assert seen[what] <= 1e-4, what


@every_family
def test_saved_maps_load(found, family):
    assert numbers(found, family)["saved and loaded"] == 0


@pytest.mark.parametrize("family", ["Flux", "SD3"])
def test_eta_0_is_flowedits_own_update(found, family):
    """Flux with guidance 1.5 and 5.5 in the prompts, SD3 with cfg 3.5 and 13.5."""
    seen = found["flow"][family]
    assert seen["FlowEdit"] <= 1e-5
    assert seen["moved"] > 0.1


def test_another_model_than_the_inversions_is_said(found):
    seen = found["notices"]
    for what in ("the same", "with a LoRA", "of an older file"):
        assert seen[what] == []
    for what, words in (("another checkpoint", "this one: SDXL EPS"), ("another prediction", "this one: SDXL V_PRED")):
        assert len(seen[what]) == 2
        for said in seen[what]:
            assert "made with another model (SDXL EPS" in said
            assert words in said


@pytest.mark.parametrize("family", ["SDXL", "SD 2 (v)"])
def test_a_few_step_edit_takes_4_steps_and_12_rows(found, family):
    seen = found["turbo"][family]
    assert (seen["steps"], seen["rows"]) == (4, 12)
    assert seen["cap"] == pytest.approx(1)
    assert seen["back, turbo"] <= 1e-4
    assert seen["moved"] > 0.01


def test_eta_0_from_the_source_with_a_pull_is_flowaligns_own_update(found):
    seen = found["flow"]["SD3, FlowAlign"]
    assert seen["FlowAlign"] <= 1e-5
    assert seen["moved"] > 0.1


@pytest.mark.parametrize("family", ["Flux", "Qwen-Image"])
def test_edit_models_get_their_reference_in_both_prompts(found, family):
    seen = found["references"][family]
    assert "error" not in seen, seen["error"]
    assert seen["back, with a reference"] <= 1e-4
    assert seen["moved, without the reference"] > 0.01


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("IMG_TO_IMG", ["input 'model'", "SD3", "without noise", "from noise"]),
        ("IMG_TO_IMG_VELOCITY", ["input 'model'", "SD3", "without noise", "from noise"]),
        ("noise_scale", ["input 'model'", "SD3", "noise 4 times", "noise scale to 1"]),
        ("nested", ["input 'latent'", "several latents", "alone"]),
    ],
)
def test_what_has_no_noise_maps_is_refused(found, what, words):
    for said in found["refusals"][what]:
        assert [word for word in words if word not in said] == []


def test_a_noise_scale_of_1_is_a_flow_model_like_any_other(found):
    assert found["refusals"]["noise_scale 1"] <= 1e-4
