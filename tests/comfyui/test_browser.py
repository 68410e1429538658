"""The frontend in a browser: it opens, converts, queues and pictures a workflow, and says what it
lacks."""

import copy
import json

import pytest
from PIL import Image

from tests.comfyui.rig.server import PACK, PromptError


def workflow(middle="ImageInvert"):
    """EmptyImage -> middle -> PreviewImage, as the frontend saves it."""
    nodes = [
        {
            "id": 1,
            "type": "EmptyImage",
            "pos": [0, 0],
            "size": [270, 130],
            "widgets_values": [96, 64, 1, 0xFF8000],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
        },
        {
            "id": 2,
            "type": middle,
            "pos": [330, 0],
            "size": [200, 30],
            "inputs": [{"name": "image", "type": "IMAGE", "link": 1}],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [2]}],
        },
        {
            "id": 3,
            "type": "PreviewImage",
            "pos": [600, 0],
            "size": [240, 280],
            "inputs": [{"name": "images", "type": "IMAGE", "link": 2}],
            "outputs": [],
        },
    ]
    return {
        "last_node_id": 3,
        "last_link_id": 2,
        "nodes": nodes,
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
        "groups": [],
        "version": 0.4,
    }


def test_converts_and_queues(page):
    page.load(workflow())
    assert page.missing() == []
    prompt = page.prompt()
    assert {node_id: node["class_type"] for node_id, node in prompt.items()} == {
        "1": "EmptyImage",
        "2": "ImageInvert",
        "3": "PreviewImage",
    }
    assert prompt["1"]["inputs"] == {"width": 96, "height": 64, "batch_size": 1, "color": 0xFF8000}
    assert prompt["2"]["inputs"] == {"image": ["1", 0]}
    [image] = page.queue().images
    assert image.size == (96, 64)
    assert image.getpixel((5, 5)) == pytest.approx((0, 127, 255), abs=1)
    assert page.our_errors() == []


def test_screenshot_shows_the_whole_graph(page, tmp_path):
    page.load(workflow())
    page.queue()
    page.screenshot(tmp_path / "graph.png")
    with Image.open(tmp_path / "graph.png") as picture:
        colours = {colour for count, colour in picture.convert("RGB").getcolors(1 << 20) if count > 1000}
        assert picture.size == pytest.approx(
            (840 + 80, 280 + 80), abs=50
        )  # the nodes' bounds and a margin; titles stand above
    assert any(red < 10 and abs(green - 127) < 5 and blue > 245 for red, green, blue in colours), (
        "the previewed picture is not to be seen"
    )


def test_missing_node_is_named(page):
    page.load(workflow("NoSuchNode"))
    assert page.missing() == ["NoSuchNode"]
    with pytest.raises(PromptError) as caught:
        page.queue()
    assert caught.value.node_id == "2"


def test_api_prompt_is_no_workflow(page):
    with pytest.raises(ValueError, match="is it an API prompt"):
        page.load({"1": {"class_type": "EmptyImage", "inputs": {}}})


def test_what_the_page_complains_about_is_read(page):
    if not page.server.version.startswith("0.3."):
        pytest.skip("newer frontends show no message for such a workflow")
    sound = json.loads((PACK / "example_workflows" / "Shift a picture.json").read_text("utf-8"))
    broken = copy.deepcopy(sound)
    broken["nodes"][0]["mode"] = None
    page.load(broken)
    [alert] = page.alerts()
    assert "nodes[0].mode" in alert
    page.load(sound)
    assert page.alerts() == []
