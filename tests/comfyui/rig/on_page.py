"""What the tests in the browser do with nodes on the Page: place them, point at them, set them,
look at them."""

import io
import json
import time

import numpy as np
from PIL import Image

from tests.comfyui.rig.server import PACK

EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "version": 0.4}

PAD = "[title^='Drag the picture']"
NODE = "app.graph.nodes.find(node => node.type === kind)"
ADD = """([kind, x, y]) => {
    const node = LiteGraph.createNode(kind)
    node.pos = [x, y]
    app.graph.add(node)
    return node.id
}"""
AT = f"""([kind, x, y]) => {{
    const node = {NODE}, frame = app.canvas.canvas.getBoundingClientRect()
    const [left, top] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + x, node.pos[1] + y])
    return [frame.left + left, frame.top + top]
}}"""
# Not the middle: there the colour bar lies.
WIDGET_AT = f"""([kind, name]) => {{
    const node = {NODE}, widget = node.widgets.find(one => one.name === name)
    return [node.size[0] / 4, widget.y + 10]
}}"""
SLOT_AT = f"""([kind, name]) => {{
    const node = {NODE}, input = node.inputs.findIndex(slot => slot.name === name)
    const at = input < 0 ? node.getOutputPos(0) : node.getInputPos(input)
    return [at[0] - node.pos[0], at[1] - node.pos[1]]
}}"""
SHOW = f"""kind => {{
    const node = {NODE}
    app.canvas.ds.scale = 1
    app.canvas.ds.offset[0] = 500 - node.pos[0]
    app.canvas.ds.offset[1] = 250 - node.pos[1]
    app.canvas.setDirty(true, true)
}}"""
FRAMES = """() => new Promise(done => {
    let count = 5
    const next = () => count-- > 0 ? requestAnimationFrame(next) : done()
    next()
})"""
VALUES = f"kind => Object.fromEntries({NODE}.widgets.map(widget => [widget.name, widget.value]))"
SET = f"""([kind, values]) => {{
    for (const widget of {NODE}.widgets.filter(widget => widget.name in values)) {{
        widget.value = values[widget.name]
        widget.callback?.(widget.value)
    }}
    app.canvas.setDirty(true, true)
}}"""


def show(page, kind):
    """Bring a node to where nothing lies over it."""
    page.page.evaluate(SHOW, kind)
    page.page.evaluate(FRAMES)


def add(page, kind):
    page.page.evaluate(ADD, [kind, 0, 0])
    show(page, kind)


def at(page, kind, x, y):
    """Where a point of a node is on the screen."""
    return page.page.evaluate(AT, [kind, x, y])


def at_widget(page, kind, name):
    return at(page, kind, *page.page.evaluate(WIDGET_AT, [kind, name]))


def keep_node(page, kind, name):
    """A picture of a node alone."""
    left, top = at(page, kind, -25, -65)
    right, bottom = at(
        page,
        kind,
        *page.page.evaluate(
            f"kind => {{ const [width, height] = {NODE}.size; return [width + 25, height + 25] }}", kind
        ),
    )
    page.keep(name, {"x": left, "y": top, "width": right - left, "height": bottom - top})


def values(page, kind):
    return page.page.evaluate(VALUES, kind)


def set_widgets(page, kind, **new):
    page.page.evaluate(SET, [kind, new])
    page.page.evaluate(FRAMES)


def inputs(page, kind):
    """What the prompt says about the only node of a kind."""
    [found] = [entry["inputs"] for entry in page.prompt().values() if entry["class_type"] == kind]
    return found


def node_ids(page, kind):
    return [node_id for node_id, entry in page.prompt().items() if entry["class_type"] == kind]


def colors(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int16)


def near(picture, color, tolerance=40):
    return (np.abs(picture - np.array(color)) < tolerance).all(-1)


def type_into(page, kind, name, text):
    """As a person: a click on the widget opens a field."""
    page.page.mouse.click(*at_widget(page, kind, name))
    field = page.page.locator(".graphdialog input.value")
    field.fill(text)
    field.press("Enter")
    page.page.evaluate(FRAMES)


def undo(page):
    """By the keys. ComfyUI loads the whole graph again, with new nodes in it."""
    page.page.evaluate("() => app.graph.nodes.forEach(node => { node.isOld = true })")
    page.page.mouse.move(800, 900)
    page.page.keyboard.press("Control+z")
    page.page.wait_for_function(
        "() => app.graph.nodes.length && app.graph.nodes.every(node => !node.isOld)", timeout=20_000
    )
    page.page.evaluate(FRAMES)


def wait_until(page, is_so, seconds=30):
    """Let the page go on until this is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        page.page.evaluate(FRAMES)


def template(name):
    return json.loads((PACK / "example_workflows" / f"{name}.json").read_text("utf-8"))


def pad_picture(page):
    return colors(page.page.locator(PAD).screenshot())
