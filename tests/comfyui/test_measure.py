"""The nodes that compare and measure, and the other inversions, in the real ComfyUI; and the help
pages, which its server hands out."""

import json
import time
import urllib.request

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.comfyui.rig.graphs import IDS, TARGET, difference, graph, masked, node, pictures, refusal
from tests.comfyui.rig.server import FOLDER, PACK, RIG, PromptError
from tests.comfyui.rig.summary import skip_without_matplotlib


def shown(name, output):
    """PreviewAny at a node's output."""
    return node("PreviewAny", source=[name, output])


def text_of(history, name):
    [text] = history[name].text
    return text


# The other inversions


def test_a_prompt_from_before_the_choice_is_edit_friendly(server):
    changes = {"target": {"text": TARGET}, "edit": {"cfg": 5.0}}
    before = server.queue(graph(**changes))
    chosen = server.queue(graph(**changes, maps={"inversion": "edit-friendly"}))
    assert (pictures(before, "out") == pictures(chosen, "out")).all()


def test_a_workflow_saved_before_the_choice_opens_as_edit_friendly(page):
    workflow = json.loads((PACK / "example_workflows" / "Shift a picture.json").read_text("utf-8"))
    [saved] = [entry for entry in workflow["nodes"] if entry["type"] == "EditFriendlyInvert"]
    saved["widgets_values"] = [40, 7, 2.5, 0.5, "dpmpp_2m_sde", "karras", 5, "fixed", 3]
    saved["inputs"] = [entry for entry in saved["inputs"] if entry["name"] != "inversion"]
    page.load(workflow)
    [inputs] = [entry["inputs"] for entry in page.prompt().values() if entry["class_type"] == "EditFriendlyInvert"]
    names = ("steps", "skip", "cfg", "eta", "solver", "scheduler", "seed", "chunk", "inversion")
    assert [inputs[name] for name in names] == [40, 7, 2.5, 0.5, "dpmpp_2m_sde", "karras", 5, 3, "edit-friendly"]


@pytest.mark.parametrize(("solver", "eta"), [("first_order", 1.0), ("dpmpp_2m_sde", 0.4)])
def test_native_maps_give_the_picture_back_and_edit_otherwise(server, solver, eta):
    settings = {"inversion": "native", "solver": solver, "eta": eta}
    assert difference(server.queue(graph(maps=settings))) <= 1
    changes = {"target": {"text": TARGET}, "edit": {"cfg": 5.0}}
    native, ours = (
        server.queue(graph(**changes, maps={**settings, "inversion": name})) for name in ("native", "edit-friendly")
    )
    assert np.abs(pictures(native, "out") - pictures(ours, "out")).max() > 20


def test_ddim_gives_the_picture_nearly_back(server):
    history = server.queue(
        graph(maps={"inversion": "ddim", "steps": 50, "skip": 10, "cfg": 1.0}, edit={"skip": 10, "cfg": 1.0})
    )
    error = np.abs(pictures(history, "out") - pictures(history, "round trip"))
    assert 0.3 < error.mean() < 8
    edited = server.queue(
        graph(
            target={"text": TARGET},
            maps={"inversion": "ddim", "steps": 50, "skip": 10, "cfg": 1.0},
            edit={"skip": 10, "cfg": 3.0},
        )
    )
    assert difference(edited) > 60


@pytest.mark.parametrize("inversion", ["native", "ddim"])
def test_a_noise_mask_keeps_the_picture_outside(server, inversion):
    changes = {"target": {"text": "a plain pink heart on a yellow background"}, "edit": {"cfg": 5.0}}
    settings = {"latent": ["masked", 0], "inversion": inversion}
    assert difference(server.queue(graph(**changes, **masked(0.0, 0.0), maps=settings))) <= 1
    half = server.queue(graph(**changes, **masked(1.0, 0.0), maps=settings))
    changed = np.abs(pictures(half, "out") - pictures(half, "round trip")).mean((0, 1, 3))
    assert changed[:96].mean() > 10
    assert changed[168:].mean() < 0.08 * changed[:96].mean()


# Noise Map Stats


@pytest.fixture
def plotting(server):
    skip_without_matplotlib(server.python)
    return server


@pytest.mark.parametrize(
    ("inversion", "sentence"),
    [("edit-friendly", "These are edit-friendly maps"), ("native", "look like the white noise")],
)
def test_stats_plot_and_say_what_the_maps_are(plotting, inversion, sentence):
    stats = {
        "stats": node("NoiseMapStats", noise_maps=["maps", 0]),
        "plot": node("PreviewImage", images=["stats", 0]),
        "text": shown("stats", 1),
    }
    history = plotting.queue(
        graph(**stats, maps={"inversion": inversion, "steps": 30, "skip": 6, "cfg": 1.0}, edit={"skip": 6})
    )
    text = text_of(history, "text")
    assert text.splitlines()[2].split()[0] == "80"  # the first step after skip 6 of 30
    assert sentence in text.splitlines()[-1]
    [plot] = pictures(history, "plot")
    assert plot.shape[1] > plot.shape[0] > 300
    blue = (np.abs(plot - (0x00, 0x72, 0xB2)).max(-1) < 10).sum()
    assert blue > 500


# Edit Metrics


def flat(grey, **more):
    """An evenly grey picture of 48 x 32."""
    return node("EmptyImage", **{"width": 48, "height": 32, "batch_size": 1, "color": grey * 0x010101, **more})


HALF_MASK = {
    "all": node("SolidMask", value=0.0, width=48, height=32),
    "left": node("SolidMask", value=1.0, width=24, height=32),
    "half": node("MaskComposite", destination=["all", 0], source=["left", 0], x=0, y=0, operation="add"),
}


def measured(source=("source", 0), edited=("edited", 0), gain=4.0, **more):
    """A prompt that measures: source is grey 100, edited grey 110."""
    extra = {name: value for name, value in more.items() if isinstance(value, dict)}
    inputs = {name: value for name, value in more.items() if not isinstance(value, dict)}
    return {
        "source": flat(100),
        "edited": flat(110),
        "metrics": node("EditMetrics", source=list(source), edited=list(edited), gain=gain, **inputs),
        "text": shown("metrics", 0),
        "difference": node("PreviewImage", images=["metrics", 1]),
        "psnr": shown("metrics", 2),
        "ssim": shown("metrics", 3),
        **extra,
    }


def psnr_of(steps):
    """dB for a difference of so many 255ths everywhere."""
    return -20 * np.log10(steps / 255)


def test_metrics_of_a_known_difference(server):
    history = server.queue(measured())
    assert float(text_of(history, "psnr")) == pytest.approx(psnr_of(10), abs=1e-3)
    assert 0.9 < float(text_of(history, "ssim")) < 1
    lines = text_of(history, "text").splitlines()
    assert lines[0] == f"PSNR: {psnr_of(10):.2f} dB"
    assert lines[1] == f"SSIM: {float(text_of(history, 'ssim')):.4f}"
    assert lines[2].startswith("LPIPS: ")
    assert lines[-1] == "measured: whole pictures"
    assert np.abs(pictures(history, "difference") - 40).max() <= 1
    amplified = server.queue(measured(gain=100.0))
    assert pictures(amplified, "difference").min() == 255


def test_identical_pictures_have_a_capped_ratio_and_history_stays_readable(server):
    history = server.queue(measured(edited=("source", 0)))
    assert text_of(history, "text").splitlines()[0] == "PSNR: identical"
    assert [float(text_of(history, name)) for name in ("psnr", "ssim")] == pytest.approx([100, 1])
    assert pictures(history, "difference").max() == 0
    blend = node(
        "ImageBlend", image1=["source", 0], image2=["edited", 0], blend_factor=["metrics", 2], blend_mode=["mode", 0]
    )
    fails = {
        "mode": node("PrimitiveString", value="no such mode"),
        "blend": blend,
        "out": node("PreviewImage", images=["blend", 0]),
    }
    with pytest.raises(PromptError) as caught:
        server.queue(measured(edited=("source", 0), **fails))
    assert caught.value.node_type == "ImageBlend"
    # The failed node's inputs stand in the history, and browsers read no Infinity.
    json.dumps(server.get("/history"), allow_nan=False)


def test_a_mask_says_where_to_measure(server):
    paste = node(
        "ImageCompositeMasked",
        destination=["source", 0],
        source=["edited", 0],
        mask=["half", 0],
        x=0,
        y=0,
        resize_source=False,
    )
    outside = node("InvertMask", mask=["half", 0])
    changes = {**HALF_MASK, "paste": paste, "outside": outside}
    inside = server.queue(measured(edited=("paste", 0), mask=["half", 0], **changes))
    beside = server.queue(measured(edited=("paste", 0), mask=["outside", 0], **changes))
    whole = server.queue(measured(edited=("paste", 0), **changes))
    assert [float(text_of(history, "psnr")) for history in (inside, beside, whole)] == pytest.approx(
        [psnr_of(10), 100, psnr_of(10) + 3.0103], abs=1e-3
    )
    assert text_of(beside, "text").splitlines()[0] == "PSNR: identical"
    assert text_of(beside, "text").splitlines()[-1] == "measured: inside the mask, 50.0 % of the picture"
    assert pictures(beside, "difference")[:, :, :24].min() > 30  # the difference picture is of the whole


def test_a_mask_of_another_size_is_scaled(server):
    small = {
        name: {**entry, "inputs": {k: v // 4 if k in ("width", "height") else v for k, v in entry["inputs"].items()}}
        for name, entry in HALF_MASK.items()
    }
    history = server.queue(measured(mask=["half", 0], **small))
    assert text_of(history, "text").splitlines()[-1] == "measured: inside the mask, 50.0 % of the picture"


def test_a_single_picture_is_measured_against_a_batch(server):
    pair = {"other": flat(120), "pair": node("ImageBatch", image1=["edited", 0], image2=["other", 0])}
    history = server.queue(measured(edited=("pair", 0), **pair))
    assert float(text_of(history, "psnr")) == pytest.approx((psnr_of(10) + psnr_of(20)) / 2, abs=1e-3)
    assert (
        text_of(history, "text")
        .splitlines()[0]
        .endswith(f"dB ({psnr_of(20):.2f} dB to {psnr_of(10):.2f} dB, 2 pictures)")
    )
    shown_pair = pictures(history, "difference")
    assert np.abs(shown_pair[0] - 40).max() <= 1
    assert np.abs(shown_pair[1] - 80).max() <= 1
    back = server.queue(measured(source=("pair", 0), edited=("source", 0), **pair))
    assert text_of(back, "psnr") == text_of(history, "psnr")


EMPTY_MASK = {"none": node("SolidMask", value=0.0, width=48, height=32)}
TWO = {"pair": node("ImageBatch", image1=["edited", 0], image2=["edited", 0])}
THREE = {"three": node("ImageBatch", image1=["pair", 0], image2=["edited", 0])}
MASKS = {"masks": node("ImageToMask", image=["pair", 0], channel="red")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"edited": ("wide", 0), "wide": flat(100, width=64)}, ["'edited'", "one size", "64 x 32", "48 x 32", "Scale"]),
        (
            {"source": ("three", 0), "edited": ("pair", 0), **TWO, **THREE},
            ["'edited'", "one length", "2 of 48 x 32", "3 of 48 x 32"],
        ),
        ({"mask": ["none", 0], **EMPTY_MASK}, ["'mask'", "empty", "48 x 32", "Draw a region"]),
        ({"mask": ["masks", 0], **TWO, **MASKS}, ["'mask'", "each of the 1 pictures", "got 2"]),
        (
            {"source": ("tiny", 0), "edited": ("tiny", 0), "tiny": flat(100, height=8)},
            ["'source'", "11 pixels", "48 x 8"],
        ),
    ],
    ids=["size", "batch", "empty mask", "masks", "small"],
)
def test_what_does_not_fit_is_refused(server, changes, words):
    with pytest.raises(PromptError) as caught:
        server.queue(measured(**changes))
    assert all(word in caught.value.message for word in ["Edit Metrics", *words]), caught.value.message


# Edit Grid


def edit_grid(**changes):
    inputs = {
        "model": ["model", 0],
        "positive": ["target", 0],
        "negative": ["empty", 0],
        "noise_maps": ["maps", 0],
        "vae": ["model", 2],
    }
    sheet = {"grid": node("EditGrid", **{**inputs, "skips": "4, 9", "cfgs": "1.5, 3", "side": 128, **changes})}
    return {
        **sheet,
        "sheet": node("PreviewImage", images=["grid", 0]),
        "edits": node("PreviewImage", images=["grid", 1]),
    }


def test_a_grid_is_a_sheet_and_its_pictures(server):
    history = server.queue(graph(**edit_grid(skips=" 4,9 ,11", cfgs="1.5,3"), target={"text": TARGET}))
    [sheet] = pictures(history, "sheet")
    assert sheet.shape == (4 * (128 + 12 + 36) + 12, 2 * (128 + 12) + 12, 3)
    assert pictures(history, "edits").shape == (6, 192, 192, 3)


def test_a_panel_with_a_source_and_faithfulness_is_the_edit_with_them(server):
    own = {"source": ["source", 0], "faithfulness": 0.05}
    for name, prompt in (("target", {"text": TARGET}), ("back", {})):
        nodes = graph(**edit_grid(skips="9", cfgs="3", **own), target=prompt, edit={"skip": 9, "cfg": 3.0, **own})
        history = server.queue(nodes)
        assert np.abs(pictures(history, "edits") - pictures(history, "out")).max() <= 1, name
        assert (difference(history) <= 1) == (name == "back")
    assert "'faithfulness'" in refusal(
        server, high=node("PrimitiveFloat", value=-0.5), **edit_grid(**{**own, "faithfulness": ["high", 0]})
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"skips": "4, nine"}, ["'skips'", "whole numbers from 4 to 11", "'4, nine'"]),
        ({"skips": "4.5"}, ["'skips'", "whole numbers from 4 to 11", "'4.5'"]),
        ({"skips": ""}, ["'skips'", "from 4 to 11", "''"]),
        ({"skips": "4, 3"}, ["'skips'", "from 4 to 11", "got 3", "instance 4, 5, 7", "Edit-Friendly Invert"]),
        ({"skips": "-1"}, ["'skips'", "from 4 to 11", "got -1"]),
        ({"skips": "4, 12"}, ["'skips'", "from 4 to 11", "got 12"]),
        ({"cfgs": "3; 5"}, ["'cfgs'", "numbers from 0 to 100", "'3; 5'"]),
        ({"cfgs": "-0.5"}, ["'cfgs'", "from 0 to 100", "got -0.5"]),
        ({"cfgs": "nan"}, ["'cfgs'", "from 0 to 100", "got nan"]),
    ],
    ids=lambda value: "-".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_lists_are_refused(server, changes, words):
    message = refusal(server, **edit_grid(**changes))
    assert all(word in message for word in ["Edit Grid", *words]), message


def test_cancel_stops_a_grid(server):
    # From here on the inversion is cached.
    server.queue(graph(**edit_grid(skips="9", cfgs="3"), maps={"skip": 0}))
    lists = {"skips": "0", "cfgs": ", ".join(["3"] * 200)}
    prompt_id = server.submit(graph(**edit_grid(**lists), maps={"skip": 0}))
    end = time.monotonic() + 120
    while not server.is_running(prompt_id):
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(2)  # into the grid
    server.interrupt()
    with pytest.raises(PromptError) as caught:
        server.wait(prompt_id, 20)
    assert (caught.value.kind, caught.value.node_type) == ("interrupted", "EditGrid")


# In full precision


@pytest.fixture(scope="module")
def inside(server, tmp_path_factory):
    """(numbers, texts) of measure_in_process.py."""
    path = tmp_path_factory.mktemp("measure") / "out.safetensors"
    server.run_script(RIG / "measure_in_process.py", PACK, path)
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata()


def test_every_panel_is_what_noise_map_edit_gives(inside):
    numbers, _ = inside
    alone = numbers["alone"]  # (4 cells, 2 pictures, H, W, 3), skip 4 first
    assert_close(numbers["pictures"], alone.transpose(0, 1).flatten(0, 1), rtol=0, atol=1e-5)
    assert all((one - other).abs().max() > 0.05 for i, one in enumerate(alone) for other in alone[:i])


def test_each_picture_of_a_batch_has_its_sheet(inside):
    numbers, _ = inside
    sheets, panel = numbers["sheets"], 192
    assert sheets.shape == (2, 3 * (panel + 12 + 36) + 12, 2 * (panel + 12) + 12, 3)
    for i, sheet in enumerate(sheets):
        expected = {(0, 0): numbers["source"][i]} | {(1 + k // 2, k % 2): numbers["alone"][k, i] for k in range(4)}
        for (row, column), picture in expected.items():
            top, left = 12 + row * (panel + 48), 12 + column * (panel + 12)
            assert_close(sheet[top : top + panel, left : left + panel], picture, rtol=0, atol=0.51 / 255)
            label = sheet[top + panel + 2 : top + panel + 34, left : left + panel]
            assert (label < 0.5).sum() > 50  # it is labelled


def test_panels_share_the_calls_of_the_model(inside):
    """Two pictures with two guidance branches: the two panels of skip 1 alone, and from skip 4 on
    all four in one call."""
    assert inside[0]["grid_calls"].tolist() == [8] * 3 + [16] * 2


def test_a_panel_of_a_patched_model_is_made_in_a_run_of_its_own(inside):
    numbers, _ = inside
    assert numbers["patched_calls"].tolist() == [4] * 14
    assert_close(numbers["patched"], numbers["pictures"], rtol=0, atol=1e-5)


def test_the_progress_bar_runs_over_all_panels(inside):
    told = inside[0]["grid_progress"].tolist()
    assert told == [[i, 14] for i in range(1, 15)]  # twice 6 - 4 and twice 6 - 1 steps


def test_ddim_is_first_order_without_noise_whatever_the_widgets_say(inside):
    numbers, texts = inside
    assert texts["ddim"] == "0.0 first_order 1"
    assert not numbers["ddim_residuals"].any()
    assert_close(numbers["ddim_last"], numbers["latent"])
    half = torch.zeros(1, 1, 24, 24)
    half[..., :12] = 1
    assert_close(numbers["ddim_mask"], half.expand_as(numbers["ddim_mask"]))
    assert numbers["ddim_progress"].tolist() == [[i, 5] for i in range(1, 6)]
    assert all(
        word in texts["ddim_stats"] for word in ("NoiseMapStats", "'noise_maps'", "eta 0", "Invert with eta above 0")
    )


def test_without_matplotlib_stats_say_what_to_install(inside):
    assert all(
        word in inside[1]["no_matplotlib"]
        for word in ("NoiseMapStats", "'noise_maps'", "needs matplotlib", "pip install matplotlib")
    )


def test_lpips_is_measured_where_it_is_there(inside):
    texts = inside[1]
    assert "LPIPS: 0.7500" in texts["lpips"].splitlines()
    assert "LPIPS: 0.2500" in texts["lpips_masked"].splitlines()
    assert "LPIPS: not measured (no weights here)" in texts["lpips_absent"].splitlines()


def test_clip_similarity_is_the_cosine_of_the_embeddings(inside):
    numbers, texts = inside
    assert numbers["cosine"].item() < 0.9999
    assert f"CLIP image similarity: {numbers['cosine'].item():.4f}" in texts["clip"].splitlines()
    assert "CLIP image similarity: 1.0000" in texts["clip_same"].splitlines()


# Help pages


@pytest.mark.parametrize("name", IDS)
def test_every_node_has_a_help_page_that_names_its_inputs(server, name):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"{server.url}/extensions/{FOLDER}/docs/{name}.md"
    ) as answer:
        page = answer.read().decode("ascii")
    info = server.object_info()[name]
    assert page.startswith(f"# {info['display_name']}\n")
    inputs = [key for kind in ("required", "optional") for key in info["input"].get(kind, {})]
    assert all(key in page for key in inputs), [key for key in inputs if key not in page]
