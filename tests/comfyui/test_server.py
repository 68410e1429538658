"""The real ComfyUI: it starts, it imports the pack, it runs and refuses prompts as it should."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.comfyui.rig import server as server_module
from tests.comfyui.rig.server import FOLDER, PromptError

NODES = set(json.loads(Path(__file__).with_name("golden").joinpath("nodes.json").read_text("utf-8")))
ORANGE = 0xFF8000


def empty_image(size=64):
    return {
        "class_type": "EmptyImage",
        "inputs": {"width": size, "height": size // 2, "batch_size": 2, "color": ORANGE},
    }


def invert(node_id):
    return {"class_type": "ImageInvert", "inputs": {"image": [node_id, 0]}}


def preview(node_id):
    return {"class_type": "PreviewImage", "inputs": {"images": [node_id, 0]}}


def test_stock_nodes_are_listed(server):
    assert {"KSampler", "VAEDecode", "SaveImage"} <= set(server.object_info())
    assert server.stats["system"]["comfyui_version"] == server.version


def test_pack_is_imported(server):
    about_pack = "\n".join(line for line in server.log.splitlines() if FOLDER in line)
    assert "IMPORT FAILED" not in about_pack, server.log
    listed = server.object_info()
    assert set(listed) >= NODES, f"not listed: {sorted(NODES - set(listed))}; the log says\n{about_pack}"
    assert {listed[name]["python_module"] for name in NODES} == {f"custom_nodes.{FOLDER}"}


def test_pictures_come_back(server):
    history = server.queue(
        {
            "1": empty_image(),
            "2": invert("1"),
            "3": preview("2"),
            "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a/b"}},
        }
    )
    for node_id, colour in (("3", (0, 127, 255)), ("4", (255, 128, 0))):
        assert len(history[node_id].images) == 2
        for image in history[node_id].images:
            np.testing.assert_allclose(np.asarray(image), np.broadcast_to(np.uint8(colour), (32, 64, 3)), atol=1)
    assert len(history.images) == 4


def test_text_comes_back(server):
    history = server.queue({"1": {"class_type": "PreviewAny", "inputs": {"source": "a text"}}})
    assert history["1"].text == ["a text"]
    assert history.text == ["a text"]


@pytest.mark.parametrize(
    ("changed", "node_id", "node_type", "kind"),
    [
        ({"2": {"class_type": "NoSuchNode", "inputs": {}}}, "2", "NoSuchNode", None),
        ({"2": {"class_type": "ImageInvert", "inputs": {}}}, "2", "ImageInvert", "required_input_missing"),
        (
            {"1": {**empty_image(), "inputs": {**empty_image()["inputs"], "width": -4}}},
            "1",
            "EmptyImage",
            "value_smaller_than_min",
        ),
        ({"3": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}}}, None, None, "prompt_no_outputs"),
    ],
)
def test_refused_prompt_names_the_node(server, changed, node_id, node_type, kind):
    with pytest.raises(PromptError) as caught:
        server.queue({"1": empty_image(), "2": invert("1"), "3": preview("2"), **changed})
    assert (caught.value.kind, caught.value.node_id, caught.value.node_type) == ("validation", node_id, node_type)
    assert caught.value.type in (
        (kind,) if kind else ("invalid_prompt", "missing_node_type")
    )  # as ComfyUI 0.3 and as 0.33 call it


def test_partly_refused_prompt_is_refused(server):
    with pytest.raises(PromptError, match="required_input_missing"):
        server.queue({"1": empty_image(), "2": preview("1"), "3": {"class_type": "PreviewImage", "inputs": {}}})


def test_failed_node_is_named(server):
    bad = {
        "string": "a",
        "regex_pattern": "(",
        "replace": "b",
        "case_insensitive": False,
        "multiline": False,
        "dotall": False,
        "count": 0,
    }
    with pytest.raises(PromptError) as caught:
        server.queue(
            {
                "7": {"class_type": "RegexReplace", "inputs": bad},
                "8": {"class_type": "PreviewAny", "inputs": {"source": ["7", 0]}},
            }
        )
    assert (caught.value.kind, caught.value.node_id, caught.value.node_type) == ("execution", "7", "RegexReplace")
    assert "unterminated" in caught.value.message
    assert "Traceback" not in caught.value.message
    assert "re.sub" in caught.value.errors[0]["traceback"]


def test_interrupt(server):
    blurs = {
        str(n): {"class_type": "ImageBlur", "inputs": {"image": [str(n - 1), 0], "blur_radius": 31, "sigma": 10.0}}
        for n in range(1, 41)
    }
    prompt_id = server.submit({"0": empty_image(1024), **blurs, "41": preview("40")})
    for _ in range(600):
        if server.is_running(prompt_id):
            break
        time.sleep(0.05)
    time.sleep(0.5)  # ComfyUI forgets an interrupt that comes before the first node starts
    server.interrupt()
    with pytest.raises(PromptError) as caught:
        server.wait(prompt_id, 60)
    assert caught.value.kind == "interrupted"
    assert caught.value.node_id in blurs


def test_why_not_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert server_module.find_comfyui()[0] is None
    assert str(tmp_path) in server_module.why_not()
    (tmp_path / "main.py").touch()
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    assert server_module.find_comfyui() == (tmp_path.resolve(), "COMFYUI_PATH")
    assert ".venv" in server_module.why_not()
    monkeypatch.setenv("COMFYUI_PYTHON", str(tmp_path / "no-python"))
    assert "no-python" in server_module.why_not()


def test_failed_start_shows_the_log(monkeypatch, tmp_path):
    (tmp_path / "main.py").write_text("raise SystemExit('a reason that only the log has')")
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    monkeypatch.setattr(server_module, "lacks_operators", lambda python: False)
    with pytest.raises(RuntimeError, match="a reason that only the log has"):
        server_module.Server().__enter__()
