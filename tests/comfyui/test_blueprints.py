"""The blueprints in subgraphs: each is one node in the browser, whose texts and numbers reach the
nodes inside, and it edits a picture."""

import json

import pytest

from tests.comfyui.rig.on_page import FRAMES
from tests.comfyui.rig.server import PACK
from tests.comfyui.rig.workflows import check_pictures

BLUEPRINTS = sorted((PACK / "subgraphs").glob("*.json"))
# The demo model, a scene and a preview around the only node of the graph.
FURNISH = """() => {
    const [blueprint] = app.graph.nodes
    const add = kind => { const node = LiteGraph.createNode(kind); app.graph.add(node); return node }
    const connect = (origin, slot, name) => {
        const at = blueprint.inputs.findIndex(input => input.name === name)
        if (at >= 0) origin.connect(slot, blueprint, at)
    }
    const [model, scene, preview] = ['LoadDemoModel', 'DrawDemoScene', 'PreviewImage'].map(add)
    const wires = [[model, 0, 'model'], [model, 1, 'clip'], [model, 2, 'vae'], [scene, 0, 'image'], [scene, 1, 'mask']]
    wires.forEach(wire => connect(...wire))
    blueprint.connect(0, preview, 0)
}"""
SET = """values => {
    const { widgets } = app.graph.nodes.find(node => node.isSubgraphNode?.())
    for (const [name, value] of Object.entries(values)) widgets.find(widget => widget.name === name).value = value
}"""
VALUES = """() => {
    const { widgets } = app.graph.nodes.find(node => node.isSubgraphNode?.())
    return Object.fromEntries(widgets.map(widget => [widget.name, widget.value]))
}"""


@pytest.fixture(scope="module", params=BLUEPRINTS, ids=lambda path: path.stem)
def blueprint(request):
    return request.param


def inputs(blueprint):
    [definition] = json.loads(blueprint.read_text("utf-8"))["definitions"]["subgraphs"]
    return {entry["name"]: entry["type"] for entry in definition["inputs"]}


def test_what_is_set_on_the_node_is_text_and_numbers(blueprint):
    """Lists broke in some frontends."""
    assert set(inputs(blueprint).values()) <= {"IMAGE", "MASK", "MODEL", "CLIP", "VAE", "STRING", "INT", "FLOAT"}


def test_a_blueprint_runs_as_one_node(page, blueprint):
    page.load(blueprint)
    assert page.alerts() == []
    assert page.missing() == []
    page.page.evaluate(FURNISH)
    settings = {"steps": 10, "skip": 4}
    cfg = {name: 3.0 if name == "cfg of the edit" else 1.0 for name in inputs(blueprint) if name.startswith("cfg")}
    settings |= cfg
    texts = {name: f"a plain red star, {name}" for name, kind in inputs(blueprint).items() if kind == "STRING"}
    assert texts
    page.page.evaluate(SET, {**settings, **texts})
    page.page.evaluate(FRAMES)
    saved = page.page.evaluate("() => app.graph.serialize()")
    page.load(saved)
    assert page.page.evaluate(VALUES) == {**settings, **texts}, "what was set was not saved"
    prompt = page.prompt()
    by_kind = {entry["class_type"]: entry["inputs"] for entry in prompt.values()}
    assert (by_kind["EditFriendlyInvert"]["steps"], by_kind["EditFriendlyInvert"]["skip"]) == (10, 4)
    assert by_kind["NoiseMapEdit"]["cfg"] == (3.0 if "target prompt" in texts else 1.0)
    written = {entry["inputs"]["text"] for entry in prompt.values() if entry["class_type"] == "CLIPTextEncode"}
    assert written == {"", *texts.values()}
    check_pictures(page.queue())
    assert page.our_errors() == []


def test_the_blueprints_are_served(server):
    if server.version == "0.3.64":
        pytest.skip("ComfyUI serves blueprints from 0.3.67 on")
    served = server.get("/global_subgraphs")
    assert {path.stem for path in BLUEPRINTS} <= {entry["name"] for entry in served.values()}
