"""The nodes in the real ComfyUI, through its server: what they give, and what they say when
something does not fit."""

import json
import os
import time

import numpy as np
import pytest

from tests.comfyui.rig.company import apart, edited
from tests.comfyui.rig.graphs import GOLDEN, IDS, SEEN, SOURCE, TARGET, difference, graph, node, pictures, refusal, text
from tests.comfyui.rig.server import PromptError

SIGNATURE = [
    "input",
    "input_order",
    "output",
    "output_is_list",
    "output_name",
    "output_tooltips",
    "name",
    "display_name",
    "description",
    "category",
]
SIGNATURE += ["output_node", "deprecated", "experimental", "api_node"]


@pytest.mark.parametrize("solver", ["first_order", "dpmpp_2m_sde"])
@pytest.mark.parametrize(("scheduler", "eta"), [("ddim_uniform", 1.0), ("karras", 0.4)])
@pytest.mark.parametrize(("cfg", "skip"), [(3.5, 4), (1.0, 0)])
def test_the_same_prompt_and_guidance_give_the_picture_back(server, solver, scheduler, eta, cfg, skip):
    settings = {"solver": solver, "scheduler": scheduler, "eta": eta, "cfg": cfg, "skip": skip}
    assert difference(server.queue(graph(maps=settings, edit={"cfg": cfg, "skip": skip}))) <= 1


def test_another_prompt_changes_it_and_a_requeue_does_not(server):
    changes = {"target": {"text": TARGET}, "edit": {"cfg": 5.0}}
    first = server.queue(graph(**changes))
    assert difference(first) > 20
    server.queue(graph(**changes, maps={"seed": 5}))  # so that nothing of the first is cached
    again = server.queue(graph(**changes))
    assert (pictures(again, "out") == pictures(first, "out")).all()


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_the_chunk_does_not_change_the_picture(server, chunk):
    whole = server.queue(graph(target={"text": TARGET}))
    parts = server.queue(graph(target={"text": TARGET}, maps={"chunk": chunk}))
    assert np.abs(pictures(whole, "out") - pictures(parts, "out")).max() <= 1


def test_sigmas_replace_steps_and_scheduler(server):
    basic = node("BasicScheduler", model=["model", 0], scheduler="normal", steps=9, denoise=1.0)
    history = server.queue(graph(basic=basic, maps={"sigmas": ["basic", 0], "steps": 500, "skip": 2}, edit={"skip": 8}))
    assert difference(history) <= 1
    split = node("SplitSigmas", sigmas=["basic", 0], step=3)
    assert (
        difference(
            server.queue(graph(basic=basic, split=split, maps={"sigmas": ["split", 1], "skip": 0}, edit={"skip": 1}))
        )
        <= 1
    )
    assert (
        difference(
            server.queue(graph(basic=basic, split=split, maps={"sigmas": ["split", 0], "skip": 0}, edit={"skip": 1}))
        )
        <= 1
    )


def test_a_wrapped_shift_there_and_back_gives_the_picture(server):
    there = node("ShiftNoise", noise_maps=["maps", 0], x=5, y=-3, fill="wrap", seed=0)
    back = node("ShiftNoise", noise_maps=["there", 0], x=-5, y=3, fill="wrap", seed=0)
    assert difference(server.queue(graph(there=there, back=back, edit={"noise_maps": ["back", 0]}))) <= 1


def test_a_shift_moves_the_picture(server):
    moved = node("ShiftNoise", noise_maps=["maps", 0], x=4, y=0, fill="noise", seed=0)
    settings = {"steps": 20, "skip": 0, "cfg": 1.0}
    history = server.queue(graph(moved=moved, maps=settings, edit={"noise_maps": ["moved", 0], "cfg": 1.0, "skip": 0}))
    assert history["moved"].ui["cells"] == [24, 24]  # across and down, for the pad
    result, source = pictures(history, "out"), pictures(history, "round trip")
    shifted = np.roll(source, 32, axis=2)
    inside = np.s_[:, :, 48:176]
    assert np.abs(result - shifted)[inside].mean() < 0.6 * np.abs(result - source)[inside].mean()


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("ShiftNoise", {"x": 9, "y": 4, "fill": "noise"}),
        ("ScaleNoiseMaps", {"scale": 0.5, "start": 100.0, "end": 0.0}),
    ],
)
def test_the_fresh_noise_of_a_change_is_that_of_its_seed(server, kind, inputs):
    changes = graph(**{str(seed): node(kind, noise_maps=["maps", 0], seed=seed, **inputs) for seed in (0, 1)})
    for seed in ("0", "1"):
        changes |= edited(f"seed {seed}", noise_maps=[seed, 0])
    assert apart(server.queue(changes), "seed 0", "seed 1") > 20


def color_edit(**changes):
    inputs = {
        "noise_maps": ["maps", 0],
        "model": ["model", 0],
        "vae": ["model", 2],
        "image": ["scene", 0],
        "mask": ["scene", 1],
    }
    settings = {"color": "#20a030", "shading": "keep lights and darks", "strength": 0.3, "start": 70.0, "end": 20.0}
    return {
        "pushed": node("ColorMaskEdit", **{**inputs, **settings, **changes}),
        "edit": {"noise_maps": ["pushed", 0], "cfg": 1.0, "skip": 10},
    }


def test_a_pushed_colour_arrives_inside_the_mask(server):
    seen = {"mask": node("MaskToImage", mask=["scene", 1]), "shape": node("PreviewImage", images=["mask", 0])}
    history = server.queue(
        graph(
            **color_edit(), **seen, source={"text": ""}, target={"text": ""}, maps={"cfg": 1.0, "steps": 20, "skip": 10}
        )
    )
    inside = pictures(history, "shape")[0, :, :, 0] > 250
    before, after = (pictures(history, name)[0] for name in ("round trip", "out"))
    assert after[inside][:, 0].mean() < before[inside][:, 0].mean() - 40  # less red
    border = np.ones(inside.shape, dtype=bool)
    border[8:-8, 8:-8] = False
    assert np.abs(after - before)[border].mean() < 12


def test_a_thin_mask_is_not_lost(server):
    """Three rows of pixels, less than a latent cell, and not the ones at which cells begin."""
    thin = {
        "whole": node("SolidMask", value=0.0, width=192, height=192),
        "line": node("SolidMask", value=1.0, width=192, height=3),
        "thin": node("MaskComposite", destination=["whole", 0], source=["line", 0], x=0, y=98, operation="add"),
    }
    empty = {"source": {"text": ""}, "target": {"text": ""}, "maps": {"cfg": 1.0, "steps": 20}}
    assert difference(server.queue(graph(**color_edit(mask=["thin", 0], strength=0.5), **thin, **empty))) > 5


@pytest.mark.parametrize(("shift", "eta"), [(1.57, 1.0), (3.0, 1.0), (3.0, 0.0)])
def test_a_flow_model_reconstructs_too(server, shift, eta):
    """With shift 1.57 the greatest noise level is rounded above 1."""
    flow = node("ModelSamplingSD3", model=["model", 0], shift=shift)
    settings = {"model": ["flow", 0], "scheduler": "simple", "skip": 0, "eta": eta}
    assert difference(server.queue(graph(flow=flow, maps=settings, edit={"model": ["flow", 0], "skip": 0}))) <= 1


def test_a_painted_picture_replaces_the_colour(server):
    settings = {"source": {"text": ""}, "target": {"text": ""}, "maps": {"cfg": 1.0, "steps": 20}}
    painted = node("DrawDemoScene", shape="star", fill="striped", color="green", background="blue", layout=4)
    history = server.queue(graph(**color_edit(painted=["paint", 0], color="no colour"), paint=painted, **settings))
    assert difference(history) > 20


def test_cancel_stops_the_inversion_and_the_next_queue_works(server):
    prompt_id = server.submit(graph(maps={"steps": 1000, "skip": 0}, edit={"skip": 0}))
    while not server.is_running(prompt_id):
        time.sleep(0.05)
    # Past the loaders: ComfyUI forgets an interrupt that comes before the first node starts.
    time.sleep(3)
    server.interrupt()
    with pytest.raises(PromptError) as caught:
        server.wait(prompt_id, 20)
    assert caught.value.kind == "interrupted"
    assert caught.value.node_type == "EditFriendlyInvert"
    assert difference(server.queue(graph())) <= 1


def test_stock_nodes_sample_with_the_demo_model(server):
    history = server.queue(
        {
            "model": node("LoadDemoModel"),
            "prompt": text(SOURCE),
            "empty": text(""),
            "blank": node("EmptyLatentImage", width=192, height=192, batch_size=2),
            "sampler": node(
                "KSampler",
                model=["model", 0],
                positive=["prompt", 0],
                negative=["empty", 0],
                latent_image=["blank", 0],
                seed=1,
                steps=12,
                cfg=5.0,
                sampler_name="euler",
                scheduler="normal",
                denoise=1.0,
            ),
            "decoded": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
            "out": node("PreviewImage", images=["decoded", 0]),
        }
    )
    result = pictures(history, "out")
    assert result.shape == (2, 192, 192, 3)
    assert result.std() > 10


def shifted(x, y):
    return {
        "there": node("ShiftNoise", noise_maps=["maps", 0], x=x, y=y, fill="noise", seed=0),
        "edit": {"noise_maps": ["there", 0]},
    }


BASIC = node("BasicScheduler", model=["model", 0], scheduler="normal", steps=5, denoise=1.0)
WIDE = {
    "basic": BASIC,
    "blank": node("EmptySD3LatentImage", width=192, height=192, batch_size=1),
    "random": node("RandomNoise", noise_seed=1),
    "wide": node("AddNoise", model=["model", 0], noise=["random", 0], sigmas=["basic", 0], latent_image=["blank", 0]),
    "maps": {"latent": ["wide", 0]},
}
FLOW = {"flow": node("ModelSamplingSD3", model=["model", 0], shift=3.0)}
EMPTY = node("EmptyLatentImage", width=192, height=192, batch_size=1)
# Values that come over a wire are not held to a widget's limits.
LINKED = {
    "two": node("PrimitiveFloat", value=2.0),
    "minus": node("PrimitiveInt", value=-1),
    "below": node("PrimitiveFloat", value=-1.0),
}
NOT_FINITE = {
    "broken": node("BrokenMask", mask=["scene", 1]),
    "not finite": node("MaskToImage", mask=["broken", 0]),
}
HALF = node("ImageScale", image=["scene", 0], upscale_method="bilinear", width=96, height=96, crop="disabled")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**LINKED, "maps": {"eta": ["two", 0]}}, ["Edit-Friendly Invert", "'eta'", "in [0, 1]", "got 2"]),
        ({**LINKED, "maps": {"seed": ["minus", 0]}}, ["Edit-Friendly Invert", "'seed'", "got -1"]),
        ({**LINKED, "maps": {"chunk": ["minus", 0]}}, ["Edit-Friendly Invert", "'chunk'", "1 or more", "got -1"]),
        ({**LINKED, **color_edit(end=["below", 0])}, ["Color Mask Edit", "'end'", "0 <= end", "end -1"]),
        (
            {**color_edit(painted=["not finite", 0]), **NOT_FINITE},
            ["Color Mask Edit", "'painted'", "encoded picture must be finite", "half precision"],
        ),
        (
            {"maps": {"skip": 12}},
            ["Edit-Friendly Invert", "'skip'", "in [0, 11] for 12 steps", "got 12", "raise steps"],
        ),
        (
            {"blank": EMPTY, "maps": {"latent": ["blank", 0]}},
            ["Edit-Friendly Invert", "'latent'", "empty", "VAE Encode"],
        ),
        (WIDE, ["Edit-Friendly Invert", "'latent'", "16 channels in 2", "needs 4 in 2", "this model's VAE"]),
        (
            {"flat": node("FlipSigmas", sigmas=["basic", 0]), "basic": BASIC, "maps": {"sigmas": ["flat", 0]}},
            ["Edit-Friendly Invert", "'sigmas'", "decrease strictly", "followed by", "high to low"],
        ),
        (
            {**FLOW, "basic": BASIC, "maps": {"model": ["flow", 0], "sigmas": ["basic", 0]}},
            ["Edit-Friendly Invert", "'sigmas'", "flow process lie in [0, 1]"],
        ),
        (
            {"edit": {"skip": 3}},
            ["Noise Map Edit", "'skip'", "in [4, 11]", "made with skip 4", "got 3", "invert again"],
        ),
        ({"edit": {"skip": 12}}, ["Noise Map Edit", "'skip'", "in [4, 11]", "have 12 steps", "got 12"]),
        ({**FLOW, "edit": {"model": ["flow", 0]}}, ["Noise Map Edit", "'noise_maps'", "'ve' model", "'flow' model"]),
        (shifted(24, 0), ["Shift Noise", "'x'", "24 latent cells", "got x 24"]),
        (shifted(0, -30), ["Shift Noise", "'y'", "got y -30"]),
        (color_edit(color="reddish"), ["Color Mask Edit", "'color'", "forestgreen", "'reddish'"]),
        (
            {**color_edit(mask=["none", 0]), "none": node("SolidMask", value=0.0, width=192, height=192)},
            ["Color Mask Edit", "'mask'", "empty", "0 everywhere", "Draw the region"],
        ),
        (
            color_edit(start=20.0, end=70.0),
            ["Color Mask Edit", "'start'", "start 20, end 70", "Lower end", "70 and 20"],
        ),
        (
            color_edit(start=100.0, end=90.0),
            ["Color Mask Edit", "'start'", "start 100 and end 90", "begin at 66.6667"],
        ),
        (
            {**color_edit(painted=["half", 0]), "half": HALF},
            ["Color Mask Edit", "'painted'", "96 x 96 pixels", "192 x 192"],
        ),
        ({**color_edit(), "maps": {"eta": 0.0}}, ["Color Mask Edit", "'noise_maps'", "eta 0"]),
        (
            {**color_edit(image=["half", 0]), "half": HALF},
            ["Color Mask Edit", "'image'", "96 x 96 pixels", "192 x 192"],
        ),
        ({**FLOW, **color_edit(model=["flow", 0])}, ["Color Mask Edit", "'noise_maps'", "'flow' model"]),
    ],
    ids=lambda value: None if isinstance(value, dict) else f"{value[0]}-{value[1].strip(chr(39))}",
)
def test_an_error_names_the_node_the_socket_the_values_and_what_to_do(server, changes, words):
    message = refusal(server, **changes)
    assert all(word in message for word in words), message


def test_an_error_has_the_title_that_the_node_has_in_the_graph(server):
    titled = graph(edit={"skip": 12})
    titled["edit"]["_meta"] = {"title": "The second edit"}
    with pytest.raises(PromptError, match="Noise Map Edit \"The second edit\", input 'skip'"):
        server.queue(titled)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ({"value": 0.0, "width": 192, "height": 192}, "Noise Map Edit: the mask is empty"),
        ({"value": 1.0, "width": 192, "height": 96}, "Noise Map Edit: the mask (192 x 96 pixels) has another shape"),
        ({"value": 1.0, "width": 200, "height": 192}, None),
    ],
)
def test_a_mask_that_a_person_may_not_mean_is_said(server, mask, said):
    before = len(server.log)
    history = server.queue(graph(drawn=node("SolidMask", **mask), edit={"mask": ["drawn", 0]}, target={"text": TARGET}))
    log = server.log[before:]
    assert (said in log) if said else ("the mask" not in log)
    assert (difference(history) <= 1) == (mask["value"] == 0)


def test_the_demo_nodes_let_what_is_ones_own_through(server):
    """The switch in the template: one's own picture and model come out where the demo's would."""
    other = node("DrawDemoScene", shape="heart", fill="plain", color="green", background="yellow", layout=5)
    patched = node("RescaleCFG", model=["demo", 0], multiplier=0.9)
    demo = {"demo": node("LoadDemoModel"), "other": other, "patched": patched}
    switched = {"model": {"own_model": ["patched", 0], "own_vae": ["demo", 2]}, "scene": {"own_picture": ["other", 0]}}
    history = server.queue(graph(**demo, **switched, target={"text": TARGET}, edit={"cfg": 5.0}))
    direct = graph(**demo, target={"text": TARGET}, edit={"cfg": 5.0, "model": ["patched", 0]})
    direct["maps"]["inputs"]["model"] = ["patched", 0]
    direct["latent"]["inputs"]["pixels"] = ["other", 0]
    assert (pictures(history, "out") == pictures(server.queue(direct), "out")).all()
    assert (pictures(history, "scene") == pictures(history, "other")).all(), "the node shows the picture that it gives"


def test_words_that_the_demo_model_does_not_know_are_said_once(server):
    before = len(server.log)
    for seed in (0, 1):
        server.queue(
            graph(target={"text": "a photo of a red star, a very long sentence of (cats:1.2)"}, maps={"seed": seed})
        )
    log = server.log[before:]
    assert log.count("Load Demo Model: the demo model does not know: photo, very, long, sentence, cats.") == 1
    assert "sequence length" not in log


def changed(kind, **inputs):
    """The edit along maps of another pack's, through a node that changes maps."""
    inputs = {"noise_maps": ["foreign", 0], **inputs}
    return {"changed": node(kind, **inputs), "edit": {"noise_maps": ["changed", 0]}}


WINDOW = {"start": 100.0, "end": 0.0}
GRID = {"model": ["model", 0], "positive": ["source", 0], "negative": ["empty", 0], "vae": ["model", 2]}
GRID |= {"noise_maps": ["foreign", 0], "skips": "4", "cfgs": "3", "side": 128}
GUIDER = {key: GRID[key] for key in ("model", "negative", "noise_maps")} | {"source": ["source", 0], "cfg": 5.0}
MASK = {key: value for key, value in GRID.items() if key not in ("skips", "cfgs", "side")}
MASK |= {"threshold": 0.4, "softness": 0.4, "grow": 0, "start": 100.0, "end": 0.0, "cfg": -1.0}
SAVE = {"noise_maps": ["foreign", 0], "filename_prefix": "noise_maps/foreign", "precision": "full"}
HALF_OF = {"amount": 0.5, **WINDOW}
FOREIGN = [
    ("NoiseMapEdit", "noise_maps", {"edit": {"noise_maps": ["foreign", 0]}}),
    ("NoiseMapSampler", "noise_maps", {"told": node("PreviewAny", source=["sockets", 2])}),
    (
        "MaskFromPrompts",
        "noise_maps",
        {"mask": node("MaskFromPrompts", **MASK), "told": node("PreviewAny", source=["mask", 2])},
    ),
    (
        "EditGuider",
        "noise_maps",
        {"guider": node("EditGuider", **GUIDER), "told": node("PreviewAny", source=["guider", 0])},
    ),
    ("EditGrid", "noise_maps", {"decoded": node("EditGrid", **GRID)}),
    ("ShiftNoise", "noise_maps", changed("ShiftNoise", x=1, y=0, fill="noise", seed=0)),
    ("ColorMaskEdit", "noise_maps", color_edit(noise_maps=["foreign", 0])),
    ("MixNoiseMaps", "noise_maps", changed("MixNoiseMaps", other_maps=["maps", 0], **HALF_OF)),
    (
        "MixNoiseMaps",
        "other_maps",
        changed("MixNoiseMaps", noise_maps=["maps", 0], other_maps=["foreign", 0], **HALF_OF),
    ),
    ("FlipNoiseMaps", "noise_maps", changed("FlipNoiseMaps", direction="left-right")),
    ("ScaleNoiseMaps", "noise_maps", changed("ScaleNoiseMaps", scale=0.5, seed=0, **WINDOW)),
    ("SaveNoiseMaps", "noise_maps", {"save": node("SaveNoiseMaps", **SAVE)}),
    ("NoiseMapStats", "noise_maps", {"told": node("PreviewAny", source=["stats", 1])}),
]


@pytest.mark.parametrize(("kind", "socket", "changes"), FOREIGN, ids=[f"{kind}-{name}" for kind, name, _ in FOREIGN])
def test_maps_of_another_pack_are_refused_by_name(server, kind, socket, changes):
    sources = {
        "foreign": node("TestForeignMaps"),
        "sockets": node("NoiseMapSampler", noise_maps=["foreign", 0], skip=-1),
        "stats": node("NoiseMapStats", noise_maps=["foreign", 0]),
    }
    message = refusal(server, **sources, **changes)
    assert f"{SEEN[kind]}, input '{socket}'" in message
    assert "NOISE_MAPS of this pack are needed; got dict" in message


def signatures(server):
    """Each node's info, less what another version of ComfyUI may change: keys that it adds, the
    folder's name and the list of its schedulers."""
    info = {name: {key: value for key, value in server.object_info()[name].items() if key in SIGNATURE} for name in IDS}
    for spec in (spec for entry in info.values() for specs in entry["input"].values() for spec in specs.values()):
        options = spec[1] if len(spec) > 1 else {}
        options.pop("advanced", None)
        if "control_after_generate" in options:
            options["control_after_generate"] = bool(options["control_after_generate"])
    scheduler = info["EditFriendlyInvert"]["input"]["required"]["scheduler"]
    options = scheduler[1].pop("options", None) or scheduler[0]
    assert {"normal", "karras", "ddim_uniform"} <= set(options)
    info["LoadNoiseMaps"]["input"]["required"]["file"][1].pop("options", None)  # the files that lie there
    return info


def test_the_signatures_are_the_golden_ones(server):
    """Saved workflows hold widget values by position: a difference here may break them. Append
    inputs, then write the file again on purpose (run this test with WRITE_GOLDEN=1)."""
    found = json.dumps(signatures(server), indent=1, sort_keys=False) + "\n"
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(found, "utf-8")
    assert json.loads(found) == json.loads(GOLDEN.read_text("utf-8"))


def test_a_newer_comfyui_is_told_what_an_older_one_would_refuse(server):
    """Other names to search a node by, inputs that newcomers need not see, seeds that stay."""
    info = server.object_info()
    is_new = "search_aliases" in info["APG"]  # a node of ComfyUI's own
    assert [name for name in IDS if bool(info[name].get("search_aliases")) != is_new] == []
    required = info["EditFriendlyInvert"]["input"]["required"]
    assert [name for name, spec in required.items() if spec[1].get("advanced")] == (
        ["solver", "chunk"] if is_new else []
    )
    assert required["seed"][1]["control_after_generate"] == ("fixed" if is_new else True)


def test_every_input_and_output_has_a_tooltip(server):
    for name, info in signatures(server).items():
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        assert all(spec[1].get("tooltip") for spec in inputs.values()), name
        assert all(info["output_tooltips"]), name
        assert info["description"], name
