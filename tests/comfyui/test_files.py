"""Noise maps saved, loaded, mixed, flipped and scaled in the real ComfyUI."""

import json
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests.comfyui.rig.graphs import TARGET, difference, graph, node, pictures, text
from tests.comfyui.rig.server import PACK, PromptError

KEPT = PACK / "tests" / "core" / "data" / "maps-1.safetensors"
EDIT = {"target": {"text": TARGET}, "edit": {"cfg": 5.0, "skip": -1}}


def save(server, prefix, precision="full"):
    """What SaveNoiseMaps says of the file that it wrote, and the file."""
    history = server.queue(
        graph(save=node("SaveNoiseMaps", noise_maps=["maps", 0], filename_prefix=prefix, precision=precision))
    )
    [entry] = history["save"].ui["noise_maps"]
    assert entry["type"] == "output"
    return history["save"], server.base / "output" / entry["subfolder"] / entry["filename"]


def edit_of(server, file):
    """The edit along the maps of a file, as pictures."""
    load = node("LoadNoiseMaps", file=file)
    return server.queue(graph(**{**EDIT, "load": load, "edit": {**EDIT["edit"], "noise_maps": ["load", 0]}}))


def refused(server, **changes):
    with pytest.raises(PromptError) as caught:
        server.queue(graph(**changes))
    error = caught.value.errors[0]
    return f"{error['message']} {error.get('details') or ''}"


def test_saved_maps_edit_as_the_inversion_does(server):
    said, path = save(server, "noise_maps/star")
    assert said.text == [f"{path.name}: {path.stat().st_size / 1e6:.1f} MB"]
    direct, loaded = server.queue(graph(**EDIT)), edit_of(server, f"noise_maps/{path.name} [output]")
    assert (pictures(loaded, "out") == pictures(direct, "out")).all()
    assert difference(direct) > 20


def test_half_precision_edits_nearly_as_well_in_less_space(server):
    (_, full), (_, half) = save(server, "noise_maps/full"), save(server, "noise_maps/half", "half")
    assert half.stat().st_size < 0.45 * full.stat().st_size
    direct, loaded = server.queue(graph(**EDIT)), edit_of(server, f"noise_maps/{half.name} [output]")
    assert np.abs(pictures(loaded, "out") - pictures(direct, "out")).max() <= 8


def test_files_are_numbered_and_listed_and_the_prompt_is_in_them(server):
    _, first = save(server, "noise_maps/number")
    _, second = save(server, "noise_maps/number", "half")
    assert [path.name for path in (first, second)] == ["number_00001_.safetensors", "number_00002_.safetensors"]
    shutil.copy(KEPT, server.base / "input" / "mine.safetensors")
    (server.base / "input" / "other.safetensors").write_bytes(b"no maps")
    [options] = [server.object_info()["LoadNoiseMaps"]["input"]["required"]["file"][1]["options"]]
    assert {"mine.safetensors", "noise_maps/number_00001_.safetensors [output]"} <= set(options)
    assert "other.safetensors" not in options
    with safe_open(first, framework="np") as file:
        prompt = json.loads(file.metadata()["prompt"])
    assert prompt["maps"]["class_type"] == "EditFriendlyInvert"


def test_a_file_that_was_written_again_is_read_again(server):
    """Though the same prompt is queued twice in turn, and the new file has the size of the old."""
    _, path = save(server, "noise_maps/changing")
    other = node("DrawDemoScene", shape="ring", fill="striped", color="red", background="pink", layout=9)
    saved = node("SaveNoiseMaps", noise_maps=["maps", 0], filename_prefix="noise_maps/replaced", precision="full")
    server.queue(graph(scene=other, save=saved))
    new = path.with_name("replaced_00001_.safetensors")
    assert new.stat().st_size == path.stat().st_size, "so that its time alone tells them apart"
    name = f"noise_maps/{path.name} [output]"
    before = pictures(edit_of(server, name), "out")
    shutil.copy(new, path)
    after = pictures(edit_of(server, name), "out")
    assert np.abs(after - before).mean() > 10


@pytest.mark.parametrize(
    "name",
    [
        "absent.safetensors",
        "../../secret.safetensors",
        "{secret}",
        "sub/../../../secret.safetensors [output]",
        "a\0b.safetensors",
        "",
    ],
)
def test_files_outside_of_comfyuis_folders_are_not_read(server, name):
    secret = server.base.parent / "secret.safetensors"
    (server.base / "output" / "sub").mkdir(exist_ok=True)
    shutil.copy(KEPT, secret)
    try:
        words = refused(
            server, load=node("LoadNoiseMaps", file=name.format(secret=secret)), edit={"noise_maps": ["load", 0]}
        )
    finally:
        secret.unlink()
    assert "Load Noise Maps, input 'file'" in words
    assert "there is no" in words


def test_a_linked_folder_is_listed_and_read(server, tmp_path):
    """Output folders often lie on another disk. All that is listed can be loaded."""
    shutil.copy(KEPT, tmp_path / "far.safetensors")
    link = server.base / "input" / "noise_maps"
    link.symlink_to(tmp_path, target_is_directory=True)
    nowhere = server.base / "input" / "nowhere.safetensors"
    nowhere.symlink_to(tmp_path / "absent")
    listed = server.object_info()["LoadNoiseMaps"]["input"]["required"]["file"][1]["options"]
    assert "noise_maps/far.safetensors" in listed
    assert nowhere.name not in listed
    for name in listed:
        prompt = graph(load=node("LoadNoiseMaps", file=name), shown=node("MapsReport", noise_maps=["load", 0]))
        assert json.loads(server.queue(prompt)["shown"].text[0])["sigmas"]["device"] == "cpu"
    link.unlink()
    nowhere.unlink()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (KEPT.read_bytes()[:900], "must be a whole safetensors file"),
        (b"\x89PNG" + bytes(99), "must be a whole"),
        (None, "8 x 12"),
    ],
    ids=["truncated", "foreign", "other-size"],
)
def test_a_file_that_holds_no_maps_for_this_model_is_refused(server, content, words):
    if content is None:
        shutil.copy(KEPT, server.base / "input" / "broken.safetensors")
        moved = {"load": node("LoadNoiseMaps", file="broken.safetensors"), "edit": {"noise_maps": ["mix", 0]}}
        said = refused(
            server,
            **moved,
            mix=node("MixNoiseMaps", noise_maps=["maps", 0], other_maps=["load", 0], amount=0.5, start=100.0, end=0.0),
        )
        assert "Mix Noise Maps, input 'other_maps'" in said
        return
    (server.base / "input" / "broken.safetensors").write_bytes(content)
    said = refused(server, load=node("LoadNoiseMaps", file="broken.safetensors"), edit={"noise_maps": ["load", 0]})
    assert "Load Noise Maps, input 'file'" in said
    assert words in said


@pytest.mark.parametrize("prefix", ["../../evil/maps", "/evil/maps", "a\0b"])
def test_nothing_is_written_outside_of_the_output_folder(server, prefix):
    said = refused(server, save=node("SaveNoiseMaps", noise_maps=["maps", 0], filename_prefix=prefix, precision="full"))
    assert "Save Noise Maps, input 'filename_prefix'" in said
    assert repr(prefix) in said
    assert not (server.base.parent / "evil").exists()
    assert not Path("/evil").exists()


def other_scene():
    """A second picture and its inversion with the same settings."""
    maps = graph()["maps"]["inputs"]
    return {
        "other": node("DrawDemoScene", shape="ring", fill="plain", color="yellow", background="green", layout=5),
        "other latent": node("VAEEncode", pixels=["other", 0], vae=["model", 2]),
        "other words": text("a plain yellow ring on a green background"),
        "other maps": node(
            "EditFriendlyInvert", **{**maps, "latent": ["other latent", 0], "positive": ["other words", 0]}
        ),
        "other trip": node("VAEDecode", samples=["other latent", 0], vae=["model", 2]),
        "other out": node("PreviewImage", images=["other trip", 0]),
    }


def mixed(**changes):
    inputs = {"noise_maps": ["maps", 0], "other_maps": ["other maps", 0], "amount": 1.0, "start": 100.0, "end": 0.0}
    return {
        **other_scene(),
        "mix": node("MixNoiseMaps", **{**inputs, **changes}),
        "edit": {"noise_maps": ["mix", 0], "skip": -1},
    }


RING = {"target": {"text": "a plain yellow ring on a green background"}}


def test_a_mix_of_nothing_and_of_all(server):
    assert difference(server.queue(graph(**mixed(amount=0.0)))) <= 1
    whole = server.queue(graph(**mixed(), **RING))
    assert np.abs(pictures(whole, "out") - pictures(whole, "other out")).max() <= 1


def test_a_mix_inside_a_mask(server):
    """All 0 is the one picture, all 1 the other, and half is neither."""
    mask = {"mask": node("SolidMask", value=0.0, width=192, height=192)}
    assert difference(server.queue(graph(**mixed(mask=["mask", 0]), **mask))) <= 1
    mask["mask"]["inputs"]["value"] = 1.0
    whole = server.queue(graph(**mixed(mask=["mask", 0]), **mask, **RING))
    assert np.abs(pictures(whole, "out") - pictures(whole, "other out")).max() <= 1
    mask["right"] = node("SolidMask", value=0.0, width=96, height=192)
    mask["halves"] = node(
        "MaskComposite", destination=["mask", 0], source=["right", 0], x=96, y=0, operation="multiply"
    )
    half = server.queue(graph(**mixed(mask=["halves", 0]), **mask, **RING))
    assert np.abs(pictures(half, "out") - pictures(half, "other out"))[:, :, 96:].mean() > 5
    assert difference(half) > 20


def test_maps_of_other_settings_are_not_mixed(server):
    changes = mixed()
    changes["other maps"]["inputs"]["steps"] = 10
    said = refused(server, **changes)
    assert "Mix Noise Maps, input 'other_maps': Both maps must have the same total steps; got 12 and 10." in said
    said = refused(server, **mixed(start=10.0, end=20.0))
    assert "Mix Noise Maps, input 'start'" in said


def test_a_flip_mirrors_the_picture(server):
    flipped = node("FlipNoiseMaps", noise_maps=["maps", 0], direction="left-right")
    history = server.queue(graph(flipped=flipped, edit={"noise_maps": ["flipped", 0], "skip": -1}))
    result, source = pictures(history, "out"), pictures(history, "round trip")
    assert np.abs(result - source[:, :, ::-1]).mean() < 0.6 * np.abs(result - source).mean()
    back = node("FlipNoiseMaps", noise_maps=["flipped", 0], direction="left-right")
    assert (
        difference(server.queue(graph(flipped=flipped, back=back, edit={"noise_maps": ["back", 0], "skip": -1}))) <= 1
    )


def test_scaled_maps_give_more_freedom_step_by_step(server):
    away = []
    for share in (1.0, 0.8, 0.4):
        scaled = node("ScaleNoiseMaps", noise_maps=["maps", 0], scale=share, start=100.0, end=0.0, seed=3)
        history = server.queue(graph(scaled=scaled, edit={"noise_maps": ["scaled", 0], "skip": -1}))
        away.append(np.abs(pictures(history, "out") - pictures(history, "round trip")).mean())
    assert away[0] < 0.1
    assert away == sorted(away)
    assert away[2] > 4


def test_an_uploaded_file_is_loaded(server):
    """As the browser does it: any file goes through /upload/image."""
    boundary = "--------upload"
    head = [
        f"--{boundary}",
        'Content-Disposition: form-data; name="image"; filename="up.safetensors"',
        "Content-Type: application/octet-stream",
    ]
    _, path = save(server, "noise_maps/upload")
    body = "\r\n".join([*head, "", ""]).encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(
        f"{server.url}/upload/image", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        assert json.load(answer)["name"] == "up.safetensors"
    direct, loaded = server.queue(graph(**EDIT)), edit_of(server, "up.safetensors")
    assert (pictures(loaded, "out") == pictures(direct, "out")).all()
