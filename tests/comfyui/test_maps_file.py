"""What web/maps_file.js adds: files of noise maps, uploaded, dropped, named. Pictures: out/screenshots/."""

import base64

import numpy as np
import pytest

from tests.comfyui.rig.graphs import graph, node, pictures
from tests.comfyui.rig.on_page import (
    AT,
    FRAMES,
    NODE,
    add,
    at_widget,
    inputs,
    keep_node,
    show,
    template,
    values,
)
from tests.comfyui.rig.server import PACK


@pytest.fixture(scope="module")
def maps_file(server):
    """A file of Save Noise Maps, and the picture that its maps give back."""
    saved = {
        "save": node("SaveNoiseMaps", noise_maps=["maps", 0], filename_prefix="noise_maps/frontend", precision="full")
    }
    history = server.queue(graph(**saved))
    return server.view(history["save"].ui["noise_maps"][0]), pictures(history, "out")


def test_a_file_is_uploaded_by_the_button_and_runs(shown, maps_file):
    content, picture = maps_file
    add(shown, "LoadNoiseMaps")
    with shown.page.expect_file_chooser() as chooser:
        shown.page.mouse.click(*at_widget(shown, "LoadNoiseMaps", "upload a file"))
    chooser.value.set_files({"name": "my maps.safetensors", "mimeType": "application/octet-stream", "buffer": content})
    shown.page.wait_for_function(f"kind => {NODE}.widgets[0].value === 'my maps.safetensors'", arg="LoadNoiseMaps")
    keep_node(shown, "LoadNoiseMaps", "upload")
    assert inputs(shown, "LoadNoiseMaps") == {"file": "my maps.safetensors"}
    assert (shown.server.base / "input" / "my maps.safetensors").read_bytes() == content
    history = shown.server.queue(graph(maps=node("LoadNoiseMaps", file="my maps.safetensors")))
    np.testing.assert_allclose(pictures(history, "out"), picture, atol=1)


DROP = f"""([kind, name, text]) => {{
    const [x, y] = ({AT})([kind, 60, 20]), dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File([text], name))
    for (const type of ['dragover', 'drop']) {{
        const event = {{ dataTransfer, clientX: x, clientY: y, bubbles: true, cancelable: true }}
        app.canvas.canvas.dispatchEvent(new DragEvent(type, event))
    }}
}}"""


def test_a_dropped_file_is_uploaded_and_a_wrong_one_refused(shown):
    add(shown, "LoadNoiseMaps")
    shown.page.evaluate(DROP, ["LoadNoiseMaps", "dropped.safetensors", "anything"])
    shown.page.wait_for_function(f"kind => {NODE}.widgets[0].value === 'dropped.safetensors'", arg="LoadNoiseMaps")
    shown.page.evaluate(DROP, ["LoadNoiseMaps", "picture.png", "anything"])
    shown.page.wait_for_selector(".p-toast-message")
    [alert] = shown.alerts()
    assert "picture.png" in alert
    assert ".safetensors" in alert
    assert values(shown, "LoadNoiseMaps")["file"] == "dropped.safetensors"


@pytest.mark.parametrize(("status", "said"), [(507, "507"), (413, "--max-upload-size")])
def test_a_failed_upload_says_why(shown, status, said):
    add(shown, "LoadNoiseMaps")
    before = values(shown, "LoadNoiseMaps")
    shown.page.route("**/upload/image", lambda route: route.fulfill(status=status))
    try:
        shown.page.evaluate(DROP, ["LoadNoiseMaps", "big.safetensors", "anything"])
        shown.page.wait_for_selector(".p-toast-message")
    finally:
        shown.page.unroute("**/upload/image")
    [alert] = shown.alerts()
    assert "big.safetensors" in alert
    assert said in alert
    assert values(shown, "LoadNoiseMaps") == before
    shown.keep(f"upload-failed-{status}")


def test_the_saved_file_is_named_on_the_node(shown):
    shown.load(template("Shift a picture"))
    shown.page.evaluate(
        """() => {
            const find = kind => app.graph.nodes.find(node => node.type === kind)
            const save = LiteGraph.createNode('SaveNoiseMaps')
            save.pos = [900, 700]
            app.graph.add(save)
            find('EditFriendlyInvert').connect(0, save, 0)
            for (const node of app.graph.nodes.filter(node => node.type === 'PreviewImage')) node.mode = 2
        }"""
    )
    show(shown, "SaveNoiseMaps")
    history = shown.queue()
    [text] = history.text
    shown.page.get_by_text(text).wait_for(timeout=10_000)
    shown.page.evaluate(FRAMES)
    keep_node(shown, "SaveNoiseMaps", "saved")
    saved = shown.page.evaluate(
        "() => app.graph.nodes.find(node => node.type === 'SaveNoiseMaps').serialize().widgets_values"
    )
    assert saved == ["noise_maps/maps", "full"]


@pytest.mark.usefixtures("no_errors")
def test_a_saved_file_opens_its_workflow(page):
    """As a file that is dropped on the canvas does."""
    page.load(PACK / "example_workflows" / "Keep noise maps for another day.json")
    nodes = sorted(page.node_types())
    [entry] = [output.ui["noise_maps"][0] for output in page.queue().outputs.values() if "noise_maps" in output.ui]
    file = base64.b64encode(page.server.view(entry)).decode()
    page.load(PACK / "example_workflows" / "Shift a picture.json")
    assert sorted(page.node_types()) != nodes
    drop = """([name, data]) => {
        const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0))
        return app.handleFile(new File([bytes], name))
    }"""
    page.page.evaluate(drop, [entry["filename"], file])
    page.page.wait_for_function("count => app.graph.nodes.length === count", arg=len(nodes))
    assert sorted(page.node_types()) == nodes
