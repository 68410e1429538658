"""The pad of web/shift_pad.js, on which the picture is dragged. Pictures of it: out/screenshots/."""

import numpy as np
import pytest
from PIL import Image

from tests.comfyui.rig.on_page import (
    FRAMES,
    PAD,
    add,
    inputs,
    keep_node,
    near,
    pad_picture,
    set_widgets,
    show,
    type_into,
    undo,
    values,
    wait_until,
)

RED, BLUE = (220, 20, 40), (40, 60, 200)


# The picture of a LoadImage through the VAE into the maps, and through a reroute to the shift; and the
# cells that a run would tell.
CONNECT = """([file, cells]) => {
    const add = (kind, x) => {
        const node = LiteGraph.createNode(kind)
        node.pos = [x, 100]
        app.graph.add(node)
        return node
    }
    const kinds = ['LoadImage', 'VAEEncode', 'EditFriendlyInvert', 'Reroute', 'ShiftNoise']
    const [picture, encode, invert, reroute, shift] = kinds.map((kind, i) => add(kind, 350 * i))
    picture.widgets[0].value = file
    picture.widgets[0].callback(file)
    picture.connect(0, encode, 0)
    encode.connect(0, invert, invert.inputs.findIndex(input => input.name === 'latent'))
    invert.connect(0, reroute, 0)
    reroute.connect(0, shift, 0)
    if (cells) app.nodeOutputs[shift.id] = { cells }
}"""


def pad_with_picture(page, cells=(24, 24)):
    """A graph whose pad shows a red square on blue, 192 pixels, whose maps have so many cells; the
    24th part of it on the screen."""
    picture = Image.new("RGB", (192, 192), BLUE)
    picture.paste(RED, (64, 64, 128, 128))
    picture.save(page.server.base / "input" / "square.png")
    page.page.evaluate("() => app.refreshComboInNodes()")
    page.page.evaluate(CONNECT, ["square.png", cells and list(cells)])
    show(page, "ShiftNoise")
    page.page.wait_for_function("() => app.graph.nodes.find(node => node.type === 'LoadImage').imgs?.[0].complete")
    page.page.evaluate(FRAMES)
    frame = page.page.locator(f"{PAD} canvas").bounding_box()
    return min(frame["width"], frame["height"]) / 24


def centre(page):
    """Where the red square lies in the pad, in pixels of the screen."""
    rows, columns = near(pad_picture(page), RED).nonzero()
    return np.array([columns.mean(), rows.mean()])


def shift(found):
    return found["x"], found["y"]


def drag(page, right, down, button="left"):
    frame = page.page.locator(PAD).bounding_box()
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    page.page.mouse.move(x, y)
    page.page.mouse.down(button=button)
    page.page.mouse.move(x + right, y + down, steps=6)
    page.page.mouse.up(button=button)
    page.page.evaluate(FRAMES)


def test_dragging_the_picture_sets_the_shift(shown):
    cell = pad_with_picture(shown)
    place = shown.page.evaluate("() => [app.graph.nodes.map(node => [...node.pos]), [...app.canvas.ds.offset]]")
    before = centre(shown)
    drag(shown, 3 * cell, -2 * cell)
    assert shift(inputs(shown, "ShiftNoise")) == (3, -2)
    np.testing.assert_allclose(centre(shown) - before, [3 * cell, -2 * cell], atol=1.5)
    keep_node(shown, "ShiftNoise", "shift-pad")
    drag(shown, -4.4 * cell, 0)
    assert shift(inputs(shown, "ShiftNoise")) == (-1, -2)
    drag(shown, 100 * cell, 0)
    assert values(shown, "ShiftNoise")["x"] == 23, "the last shift that leaves a part of the picture"
    assert (
        shown.page.evaluate("() => [app.graph.nodes.map(node => [...node.pos]), [...app.canvas.ds.offset]]") == place
    ), "the node or the canvas moved too"
    for step in ((-1, -2), (3, -2)):
        for _ in range(3):  # ComfyUI counts what it does itself, such as making a node larger, as steps too
            undo(shown)
            if shift(values(shown, "ShiftNoise")) == step:
                break
        assert shift(values(shown, "ShiftNoise")) == step


def test_the_pad_follows_the_widgets_the_keys_and_the_zoom(shown):
    cell = pad_with_picture(shown)
    before = centre(shown)
    type_into(shown, "ShiftNoise", "y", "4")
    np.testing.assert_allclose(centre(shown) - before, [0, 4 * cell], atol=1.5)
    set_widgets(shown, "ShiftNoise", fill="wrap", x=12)
    rows, columns = near(pad_picture(shown), RED).nonzero()
    gaps = np.diff(np.unique(columns))
    assert gaps.max() > 5 * cell, "what leaves on the right comes in on the left"
    shown.page.locator(PAD).press("ArrowLeft")
    shown.page.locator(PAD).press("ArrowDown")
    assert shift(inputs(shown, "ShiftNoise")) == (11, 5)
    shown.page.locator(PAD).dblclick()
    assert shift(inputs(shown, "ShiftNoise")) == (0, 0)
    undo(shown)
    assert shift(values(shown, "ShiftNoise")) == (11, 5)
    set_widgets(shown, "ShiftNoise", x=0, y=0)
    shown.page.evaluate("() => { app.canvas.ds.scale = 1.5; app.canvas.setDirty(true, true) }")
    shown.page.evaluate(FRAMES)
    drag(shown, 2 * 1.5 * cell, 1.5 * cell)
    assert shift(inputs(shown, "ShiftNoise")) == (2, 1)
    shown.page.mouse.wheel(0, 100)
    shown.page.evaluate(FRAMES)
    assert shown.page.evaluate("() => app.canvas.ds.scale") < 1.5, "the wheel over the pad zooms the canvas"
    place = shown.page.evaluate("() => [...app.canvas.ds.offset]")
    drag(shown, 40, 30, button="middle")
    assert shown.page.evaluate("() => [...app.canvas.ds.offset]") != place, (
        "the middle button over the pad moves the canvas"
    )
    assert shift(inputs(shown, "ShiftNoise")) == (2, 1)


def test_the_pad_without_a_picture(shown):
    add(shown, "ShiftNoise")
    shown.page.evaluate("() => { app.nodeOutputs[app.graph.nodes[0].id] = { cells: [32, 64] } }")
    frame = shown.page.locator(f"{PAD} canvas").bounding_box()
    cell = min(frame["width"] / 32, frame["height"] / 64)
    shown.page.evaluate("() => app.canvas.setDirty(true, true)")
    shown.page.evaluate(FRAMES)
    before = pad_picture(shown)
    drag(shown, 10 * cell, 5 * cell)
    assert shift(inputs(shown, "ShiftNoise")) == (10, 5)
    assert (pad_picture(shown) != before).any()
    keep_node(shown, "ShiftNoise", "shift-pad-empty")


def test_before_the_first_run_the_pad_moves_by_the_keys_alone(shown):
    cell = pad_with_picture(shown, cells=None)
    keep_node(shown, "ShiftNoise", "shift-pad-before")
    assert near(pad_picture(shown), RED).sum() > 100
    drag(shown, 3 * cell, -2 * cell)
    assert shift(inputs(shown, "ShiftNoise")) == (0, 0)
    shown.page.locator(PAD).press("ArrowRight")
    assert shift(inputs(shown, "ShiftNoise")) == (1, 0)


def test_the_pad_needs_no_drawing_of_the_canvas(shown):
    """As with Nodes 2.0: everything within one call, between two frames."""
    pad_with_picture(shown)
    pictures_of_it, sharpness = shown.page.evaluate(
        """() => {
            const node = app.graph.nodes.at(-1), pad = node.widgets.at(-1).element.querySelector('canvas')
            const set = (name, value) => {
                const chosen = node.widgets.find(widget => widget.name === name)
                chosen.value = value
                chosen.callback(value)
            }
            const changes = [['x', 3], ['y', 4], ['fill', 'wrap']].map(change => () => set(...change))
            const pictures = [pad.toDataURL()]
            for (const change of [...changes, () => node.disconnectInput(0)]) {
                change()
                pictures.push(pad.toDataURL())
            }
            app.canvas.ds.scale = 4
            set('x', 5)
            return [pictures, pad.width / pad.clientWidth / devicePixelRatio]
        }"""
    )
    assert len(set(pictures_of_it)) == 5
    assert sharpness == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(("cells", "expected"), [((12, 12), 2), ((24, 24), 4), ((192, 192), 32)])
def test_a_cell_is_as_large_as_the_last_run_told(shown, cells, expected):
    """Of 192 pixels: 16 each, as in Wan 2.2 and Flux.2; 8; and none of a model of pixels."""
    cell = pad_with_picture(shown, cells)
    drag(shown, 4 * cell, 0)
    assert shift(inputs(shown, "ShiftNoise")) == (expected, 0)


ENCLOSE = """kinds => {
    const nodes = app.graph.nodes.filter(node => kinds.includes(node.type))
    app.graph.convertToSubgraph(new Set(nodes))
}"""


def test_the_pad_sees_the_picture_inside_of_a_subgraph(shown):
    pad_with_picture(shown)
    shown.page.evaluate(ENCLOSE, ["LoadImage", "VAEEncode"])
    shown.page.evaluate(
        """() => {
            const inner = app.graph.nodes.find(node => node.subgraph).subgraph
            const picture = inner.nodes.find(node => node.type === 'LoadImage')
            picture.imgs = null // as in a workflow just opened, whose subgraph nobody has looked into
            const images = [{ filename: 'square.png', subfolder: '', type: 'input' }]
            app.nodeOutputs[`${inner.id}:${picture.id}`] = { images }
        }"""
    )
    show(shown, "ShiftNoise")
    wait_until(shown, lambda: near(pad_picture(shown), RED).sum() > 100)


def test_the_pad_in_a_subgraph_sees_the_picture_outside(shown):
    pad_with_picture(shown)
    shown.page.evaluate(ENCLOSE, ["Reroute", "ShiftNoise"])
    shown.page.evaluate(
        """() => {
            const inner = app.graph.nodes.find(node => node.subgraph).subgraph
            const shift = inner.nodes.find(node => node.type === 'ShiftNoise')
            app.nodeOutputs[`${inner.id}:${shift.id}`] = { cells: [24, 24] }
            app.canvas.setGraph(inner)
            app.canvas.ds.scale = 1
            app.canvas.ds.offset[0] = 500 - shift.pos[0]
            app.canvas.ds.offset[1] = 250 - shift.pos[1]
            app.canvas.setDirty(true, true)
        }"""
    )
    try:
        wait_until(shown, lambda: shown.page.locator(PAD).count() and near(pad_picture(shown), RED).sum() > 100)
    finally:
        shown.page.evaluate("() => app.canvas.setGraph(app.graph)")


def test_the_pad_survives_what_happens_to_nodes(shown):
    cell = pad_with_picture(shown)
    drag(shown, 3 * cell, 0)
    height = shown.page.locator(PAD).bounding_box()["height"]
    shown.page.evaluate(
        """() => {
            const node = app.graph.nodes.at(-1)
            node.setSize([node.size[0] + 100, node.size[1] + 100])
            app.canvas.setDirty(true, true)
        }"""
    )
    shown.page.evaluate(FRAMES)
    assert shown.page.locator(PAD).bounding_box()["height"] == pytest.approx(height + 100, abs=2)
    shown.page.evaluate("() => app.graph.nodes.at(-1).collapse()")
    shown.page.evaluate(FRAMES)
    assert not shown.page.locator(PAD).is_visible()
    shown.page.evaluate("() => app.graph.nodes.at(-1).collapse()")
    shown.page.evaluate(FRAMES)
    assert shown.page.locator(PAD).is_visible()
    shown.page.evaluate(
        """() => {
            app.canvas.selectNode(app.graph.nodes.at(-1))
            app.canvas.copyToClipboard()
            app.canvas.pasteFromClipboard()
        }"""
    )
    shown.page.evaluate(FRAMES)
    pads = [entry["inputs"] for entry in shown.prompt().values() if entry["class_type"] == "ShiftNoise"]
    assert [entry["x"] for entry in pads] == [3, 3]
    assert shown.page.locator(PAD).count() == 2
    shown.page.evaluate("() => app.graph.remove(app.graph.nodes.at(-1))")
    shown.page.evaluate(FRAMES)
    assert shown.page.locator(PAD).count() == 1
    saved = shown.page.evaluate("() => app.graph.serialize()")
    shown.load(saved)
    show(shown, "ShiftNoise")
    assert values(shown, "ShiftNoise")["x"] == 3
    shown.page.wait_for_function("() => app.graph.nodes.find(node => node.type === 'LoadImage').imgs?.[0].complete")
    shown.page.evaluate(FRAMES)
    assert near(pad_picture(shown), RED).sum() > 100


def test_nodes_2_have_the_shift_pad(nodes_2):
    cell = pad_with_picture(nodes_2)
    nodes_2.page.locator(f"[data-node-id] {PAD}").wait_for()
    nodes_2.page.locator(PAD).hover()  # the picture has come since the links
    before = centre(nodes_2)
    drag(nodes_2, 3 * cell, -2 * cell)
    assert shift(inputs(nodes_2, "ShiftNoise")) == (3, -2)
    np.testing.assert_allclose(centre(nodes_2) - before, [3 * cell, -2 * cell], atol=1.5)
    nodes_2.page.locator(PAD).press("ArrowLeft")
    assert shift(inputs(nodes_2, "ShiftNoise")) == (2, -2)
    nodes_2.keep("nodes-2-shift-pad")
