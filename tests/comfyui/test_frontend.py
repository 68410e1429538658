"""The pack in the browser: what web/*.js adds to the nodes, and what a person does with the nodes there, by real clicks. Pictures of it: out/screenshots/."""

import base64
import io
import json
import re
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tests.comfyui.server import PACK
from tests.comfyui.test_nodes import IDS, graph, node, pictures
from tests.comfyui.test_workflows import WORKFLOWS

EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "version": 0.4}
TYPE_COLOR = (0x0D, 0x94, 0x88)
RED, BLUE = (220, 20, 40), (40, 60, 200)

NODE = "app.graph.nodes.find(node => node.type === kind)"
ADD = "([kind, x, y]) => { const node = LiteGraph.createNode(kind); node.pos = [x, y]; app.graph.add(node); return node.id }"
AT = f"""([kind, x, y]) => {{
    const node = {NODE}, frame = app.canvas.canvas.getBoundingClientRect()
    const [left, top] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + x, node.pos[1] + y])
    return [frame.left + left, frame.top + top]
}}"""
WIDGET_AT = f"([kind, name]) => {{ const node = {NODE}, widget = node.widgets.find(found => found.name === name); return [node.size[0] / 2, widget.y + 10] }}"
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
FRAMES = "() => new Promise(done => { let count = 5; const next = () => count-- > 0 ? requestAnimationFrame(next) : done(); next() })"
VALUES = f"kind => Object.fromEntries({NODE}.widgets.map(widget => [widget.name, widget.value]))"
SET = f"""([kind, values]) => {{
    for (const widget of {NODE}.widgets) if (widget.name in values) {{ widget.value = values[widget.name]; widget.callback?.(widget.value) }}
    app.canvas.setDirty(true, true)
}}"""
# The picture of a LoadImage through the VAE into the maps, and through a reroute to the shift.
CONNECT = """file => {
    const add = (kind, x) => { const node = LiteGraph.createNode(kind); node.pos = [x, 100]; app.graph.add(node); return node }
    const kinds = ['LoadImage', 'VAEEncode', 'EditFriendlyInvert', 'Reroute', 'ShiftNoise']
    const [picture, encode, invert, reroute, shift] = kinds.map((kind, i) => add(kind, 350 * i))
    picture.widgets[0].value = file
    picture.widgets[0].callback(file)
    picture.connect(0, encode, 0)
    encode.connect(0, invert, invert.inputs.findIndex(input => input.name === 'latent'))
    invert.connect(0, reroute, 0)
    reroute.connect(0, shift, 0)
}"""
WATCH = """() => {
    const api = window.comfyAPI.api.api
    const watch = (name, read) => api.addEventListener(name, event => window.seen.push({ name, at: performance.now(), ...read(event.detail) }))
    if (!window.seen) {
        watch('progress', detail => ({ node: detail.node, value: detail.value, max: detail.max }))
        watch('b_preview_with_metadata', detail => ({ node: detail.displayNodeId, size: detail.blob.size }))
        for (const name of ['execution_interrupted', 'execution_success', 'execution_error']) watch(name, () => ({}))
    }
    window.seen = []
    performance.clearResourceTimings()
}"""
INTERRUPTED_AT = "() => performance.getEntriesByType('resource').find(entry => entry.name.endsWith('/interrupt')).responseEnd"


@pytest.fixture(autouse=True)
def no_errors(page):
    yield
    # Help pages are looked for in the reader's language first.
    assert [error for error in page.our_errors() if not re.search(r"/docs/\w+/en\.md$", error["url"])] == []


@pytest.fixture
def shown(page):
    """The page with everything that is on it, and an empty graph."""
    page.load(EMPTY)
    with page.whole():
        yield page


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
    right, bottom = at(page, kind, *page.page.evaluate(f"kind => {{ const [width, height] = {NODE}.size; return [width + 25, height + 25] }}", kind))
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


def undo(page):
    """By the keys. ComfyUI loads the whole graph again, with new nodes in it."""
    page.page.evaluate("() => app.graph.nodes.forEach(node => { node.isOld = true })")
    page.page.mouse.move(800, 900)
    page.page.keyboard.press("Control+z")
    page.page.wait_for_function("() => app.graph.nodes.length && app.graph.nodes.every(node => !node.isOld)", timeout=20_000)
    page.page.evaluate(FRAMES)


def wait_until(page, is_so, seconds=30):
    """Let the page go on until this is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        page.page.evaluate(FRAMES)


def template(name):
    return json.loads((PACK / "example_workflows" / f"{name}.json").read_text("utf-8"))


# --- every node ---


def declared(definition):
    """The node's inputs as the server declares them: {name: default} of those with a widget, and the sockets."""
    widgets, sockets = {}, []
    for group in ("required", "optional"):
        for name, (kind, *options) in definition["input"].get(group, {}).items():
            options = options[0] if options else {}
            choices = kind if isinstance(kind, list) else options.get("options", [])
            if kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or isinstance(kind, list):
                widgets[name] = options.get("default", choices[0] if choices else None)
                if options.get("control_after_generate"):
                    widgets["control_after_generate"] = "fixed"
            else:
                sockets.append(name)
    return widgets, sockets


@pytest.mark.parametrize("kind", IDS)
def test_every_node_appears_and_saves_only_its_own_values(shown, kind):
    definition = shown.server.object_info()[kind]
    widgets, sockets = declared(definition)
    shown.page.evaluate("() => app.refreshComboInNodes()")  # files may have come since the page was opened
    add(shown, kind)
    found = shown.page.evaluate(
        f"""kind => {{
            const node = {NODE}, told = node.constructor.nodeData
            return {{
                saved: node.serialize().widgets_values ?? [],
                names: (node.widgets ?? []).map(widget => [widget.name, widget.serialize !== false]),
                sockets: node.inputs.filter(input => !input.widget).map(input => input.name),
                outputs: node.outputs.length,
                tooltips: [...Object.values(told.inputs), ...told.outputs].map(slot => slot.tooltip),
                fits: node.size[1] >= node.computeSize()[1],
            }}
        }}""",
        kind,
    )
    assert found["saved"] == list(widgets.values())
    assert found["names"][: len(widgets)] == [[name, True] for name in widgets]
    assert all(not saved for _, saved in found["names"][len(widgets) :])
    assert found["sockets"] == sockets
    assert found["outputs"] == len(definition["output"])
    assert len(found["tooltips"]) == len(sockets) + len(set(widgets) - {"control_after_generate"}) + found["outputs"]
    assert all(found["tooltips"])
    assert found["fits"]
    assert set(inputs(shown, kind)) == set(widgets) - {"control_after_generate"}


@pytest.mark.parametrize("place", ["skip", "latent", "noise_maps", "title"])
def test_a_tooltip_shows_under_the_mouse(shown, place):
    kind = "EditFriendlyInvert"
    definition = shown.server.object_info()[kind]
    declared_inputs = definition["input"]["required"]
    add(shown, kind)
    if place == "skip":
        point, tooltip = at_widget(shown, kind, place), declared_inputs[place][1]["tooltip"]
    elif place == "title":
        point, tooltip = at(shown, kind, 80, -15), definition["description"]
    else:
        point = at(shown, kind, *shown.page.evaluate(SLOT_AT, [kind, place]))
        tooltip = declared_inputs[place][1]["tooltip"] if place in declared_inputs else definition["output_tooltips"][0]
    shown.page.mouse.move(10, 500)
    shown.page.mouse.move(*point, steps=4)
    shown.page.wait_for_selector(".node-tooltip", timeout=10_000)
    assert shown.page.locator(".node-tooltip").inner_text().strip() == tooltip
    shown.keep(f"tooltip-{place}")


def own_words(kind):
    """The first paragraph of a node's help page, as it reads without its marks."""
    folder = PACK / "web" / "docs"
    page = next((path for path in (folder / kind / "en.md", folder / f"{kind}.md") if path.is_file()), None)
    assert page, f"{kind} has no help page"
    paragraphs = [part for part in page.read_text("utf-8").split("\n\n") if re.match(r"\w", part)]
    return " ".join(re.sub(r"[*`]|\[|\]\([^)]*\)", "", paragraphs[0]).split())


@pytest.mark.parametrize("kind", IDS)
def test_the_help_panel_shows_our_text(shown, kind):
    words = own_words(kind)
    add(shown, kind)
    shown.page.mouse.click(*at(shown, kind, 60, -15))
    shown.page.get_by_test_id("info-button").click()
    text = shown.page.locator(".node-help-content .markdown-content")
    text.wait_for(timeout=20_000)
    assert words in " ".join(text.inner_text().split())
    assert text.locator("img").evaluate_all("images => images.filter(image => image.complete && !image.naturalWidth).map(image => image.src)") == []
    if kind in ("EditFriendlyInvert", "ShiftNoise"):
        shown.keep(f"help-{kind}")
    shown.page.locator(".node-library-tab-button").click()  # closes it


# --- templates ---


def open_template(page, name):
    """Through the template browser, by clicks."""
    page.page.locator(".templates-tab-button").click()
    page.page.get_by_role("option", name=page.server.folder).click()
    page.page.wait_for_function("() => document.querySelectorAll('.template-card').length > 5")
    page.keep("templates")
    page.page.get_by_placeholder("Search templates...").fill(name)  # without it only the first twelve are there until one scrolls
    card = page.page.get_by_test_id(f"template-workflow-{name}")
    page.page.wait_for_function("card => [...card.querySelectorAll('img')].some(image => image.complete && image.naturalWidth > 0)", arg=card.element_handle())
    return card


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_template_opens_from_the_template_browser(shown, path):
    open_template(shown, path.stem).click()
    expected = Counter(entry["type"] for entry in json.loads(path.read_text("utf-8"))["nodes"])
    shown.page.wait_for_function("count => app.graph.nodes.length === count", arg=expected.total())
    assert Counter(shown.node_types()) == expected
    assert shown.missing() == []
    assert shown.alerts() == []
    shown.page.wait_for_selector(".p-dialog-mask", state="detached")


def test_run_button_and_live_previews(shown):
    open_template(shown, "Shift a picture").click()
    shown.page.wait_for_function("() => app.graph.nodes.some(node => node.type === 'ShiftNoise')")
    set_widgets(shown, "EditFriendlyInvert", seed=1234)
    show(shown, "ShiftNoise")
    shown.page.evaluate(WATCH)
    shown.page.get_by_test_id("queue-button").get_by_role("button").first.click()
    [edit] = node_ids(shown, "NoiseMapEdit")
    shown.page.wait_for_function("id => seen.some(event => event.name === 'b_preview_with_metadata' && event.node === id)", arg=edit)
    shown.keep("live-preview")
    shown.page.wait_for_function("() => seen.some(event => event.name.startsWith('execution_'))")
    seen = shown.page.evaluate("() => seen")
    assert seen[-1]["name"] == "execution_success"
    for kind in ("EditFriendlyInvert", "NoiseMapEdit"):
        previews = [event for event in seen if event["name"] == "b_preview_with_metadata" and [event["node"]] == node_ids(shown, kind)]
        assert len(previews) > 3, f"{kind} showed {len(previews)} previews"
        assert len({event["size"] for event in previews}) > 1, "every preview is the same"
        assert shown.page.evaluate(f"kind => {NODE}.imgs[0].naturalWidth > 0", kind)
    # The picture of DrawDemoScene, which shows none itself, is found on the preview beside it.
    shown.page.wait_for_function("() => app.graph.nodes.filter(node => node.type === 'PreviewImage').every(node => node.imgs?.[0].complete)")
    shown.page.evaluate("() => app.canvas.setDirty(true, true)")
    shown.page.evaluate(FRAMES)
    assert near(pad_picture(shown), (220, 30, 40)).sum() > 500
    shown.keep("shifted")


# --- cancel ---


@pytest.mark.parametrize("kind", ["EditFriendlyInvert", "NoiseMapEdit"])
def test_cancel_stops_soon_and_the_next_run_is_right(shown, kind):
    def short_run():
        shown.load(template("Reconstruct a picture"))
        set_widgets(shown, "EditFriendlyInvert", steps=12, skip=4)
        set_widgets(shown, "NoiseMapEdit", skip=4)
        return shown.queue()

    before = short_run()
    skip = 0 if kind == "EditFriendlyInvert" else 850  # few steps to invert, so that the edit begins soon
    set_widgets(shown, "EditFriendlyInvert", steps=1000, skip=skip, chunk=1 if skip == 0 else 0)
    set_widgets(shown, "NoiseMapEdit", skip=skip)
    [running] = node_ids(shown, kind)
    shown.page.evaluate(WATCH)
    shown.page.get_by_test_id("queue-button").get_by_role("button").first.click()
    shown.page.wait_for_function("id => seen.some(event => event.name === 'progress' && event.node === id && event.value >= 3)", arg=running)
    shown.page.locator(".execution-actions button").first.click()
    shown.page.wait_for_function("() => seen.some(event => event.name.startsWith('execution_'))")
    seen = shown.page.evaluate("() => seen")
    interrupted_at = shown.page.evaluate(INTERRUPTED_AT)
    reports = [event for event in seen if event["name"] == "progress"]
    assert seen[-1]["name"] == "execution_interrupted"
    assert reports[-1]["node"] == running
    assert reports[-1]["value"] < 0.9 * reports[-1]["max"]
    # The step that ran; the others were on their way, since a busy browser reads reports later than the answer.
    assert sum(event["at"] > interrupted_at for event in reports) <= 20
    shown.page.evaluate(WATCH)
    again = short_run()
    assert any(event["name"] == "progress" and event["node"] == running for event in shown.page.evaluate("() => seen")), "nothing was computed anew"
    assert len(again.images) == len(before.images)
    for old, new in zip(before.images, again.images):
        np.testing.assert_array_equal(np.asarray(old), np.asarray(new))


# --- seeds, colours of links ---


def test_seeds_are_fixed_on_new_nodes_and_kept_on_load(shown):
    workflow = template("Shift a picture")
    for saved in workflow["nodes"]:
        saved["widgets_values"] = ["randomize" if value == "fixed" else value for value in saved.get("widgets_values") or []]
    shown.load(workflow)
    assert values(shown, "EditFriendlyInvert")["control_after_generate"] == "randomize"
    assert values(shown, "ShiftNoise")["control_after_generate"] == "randomize"
    shown.load(EMPTY)
    add(shown, "KSampler")
    assert values(shown, "KSampler")["control_after_generate"] == "randomize", "a stock node's seed is not ours"


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_links_have_a_colour_of_their_own_in_every_theme(page, theme):
    page.load(template("Reconstruct a picture"))
    set_theme = "theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)"
    page.page.evaluate(set_theme, theme)

    def is_shown():
        picture = colors(page.page.screenshot())
        return (np.median(picture) > 128) == (theme == "light") and near(picture, TYPE_COLOR, 12).sum() > 30

    try:
        with page.whole():
            page.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
            wait_until(page, is_shown)
            page.keep(f"links-{theme}")
    finally:
        page.page.evaluate(set_theme, "dark")


# --- the colour control ---


def test_the_colour_control_and_the_text_follow_each_other(shown):
    add(shown, "ColorMaskEdit")
    control = shown.page.locator("input[type=color]")
    assert control.input_value() == "#1e90ff"
    control.fill("#12ab34")
    assert inputs(shown, "ColorMaskEdit")["color"] == "#12ab34"
    keep_node(shown, "ColorMaskEdit", "colour-control")
    for typed, expected in (("#f80", "#ff8800"), (" AbCdEf ", "#abcdef"), ("0a0", "#00aa00")):
        type_into(shown, "ColorMaskEdit", "color", typed)
        assert inputs(shown, "ColorMaskEdit")["color"] == typed
        assert control.input_value() == expected
        assert control.get_attribute("aria-invalid") == "false"
    type_into(shown, "ColorMaskEdit", "color", "green")
    assert control.input_value() == "#00aa00"
    assert control.get_attribute("aria-invalid") == "true"
    assert shown.page.get_by_title('"green" is not a colour').is_visible()
    keep_node(shown, "ColorMaskEdit", "colour-control-invalid")
    control.fill("#0000ff")
    assert inputs(shown, "ColorMaskEdit")["color"] == "#0000ff"
    undo(shown)
    assert values(shown, "ColorMaskEdit")["color"] == "green"


def test_the_colour_control_needs_no_drawing_of_the_canvas(shown):
    """As with Nodes 2.0: everything within one call, between two frames."""
    found = shown.page.evaluate(
        """() => {
            const node = LiteGraph.createNode('ColorMaskEdit'), [input] = node.widgets.at(-1).element.querySelectorAll('input')
            const text = node.widgets.find(widget => widget.name === 'color'), look = () => [input.value, input.parentElement.style.background]
            const looks = [look()], saved = node.serialize()
            text.value = '#f80'
            text.callback(text.value)
            looks.push(look())
            saved.widgets_values = saved.widgets_values.map(value => value === '#1e90ff' ? '#0a0' : value)
            node.configure(saved)
            looks.push(look())
            return looks
        }"""
    )
    assert found == [["#1e90ff", "rgb(30, 144, 255)"], ["#ff8800", "rgb(255, 136, 0)"], ["#00aa00", "rgb(0, 170, 0)"]]


def test_the_colour_control_rests_while_the_text_is_connected(shown):
    add(shown, "ColorMaskEdit")
    control = shown.page.locator("input[type=color]")
    assert control.is_enabled()
    shown.page.evaluate(
        """() => {
            const [node] = app.graph.nodes, origin = LiteGraph.createNode('PrimitiveString')
            app.graph.add(origin)
            origin.connect(0, node, node.inputs.findIndex(slot => slot.name === 'color'))
        }"""
    )
    shown.page.evaluate(FRAMES)
    assert control.is_disabled()


def type_into(page, kind, name, text):
    """As a person: a click on the widget opens a field."""
    page.page.mouse.click(*at_widget(page, kind, name))
    field = page.page.locator(".graphdialog input.value")
    field.fill(text)
    field.press("Enter")
    page.page.evaluate(FRAMES)


def test_a_picked_colour_arrives_in_the_picture(shown):
    shown.load(template("Push a colour into a region"))
    show(shown, "ColorMaskEdit")
    shown.page.locator("input[type=color]").fill("#8020c0")
    history = shown.queue()
    prompt = shown.server.get(f"/history/{history.prompt_id}")[history.prompt_id]["prompt"][2]
    assert [entry["inputs"]["color"] for entry in prompt.values() if entry["class_type"] == "ColorMaskEdit"] == ["#8020c0"]
    red, green, blue = color_inside(history, prompt)
    assert blue > green + 30
    assert red > green + 10
    shown.page.evaluate(FRAMES)
    shown.keep("colour-picked")


def color_inside(history, prompt):
    """The mean colour of the edited picture inside the mask; each is known by what its preview hangs on."""
    shown = {
        prompt[entry["inputs"].get("images", [node_id])[0]]["class_type"]: history[node_id] for node_id, entry in prompt.items() if node_id in history.outputs
    }
    [edited], [mask] = shown["VAEDecode"].images, shown["MaskPreview"].images
    return np.asarray(edited.convert("RGB"), dtype=float)[np.asarray(mask.convert("L")) > 200].mean(0)


# --- the shift pad ---


PAD = "[title^='Drag the picture']"


def pad_picture(page):
    return colors(page.page.locator(PAD).screenshot())


def pad_with_picture(page):
    """A graph whose pad shows a red square on blue, 192 pixels; the size of a cell on the screen."""
    picture = Image.new("RGB", (192, 192), BLUE)
    picture.paste(RED, (64, 64, 128, 128))
    picture.save(page.server.base / "input" / "square.png")
    page.page.evaluate("() => app.refreshComboInNodes()")
    page.page.evaluate(CONNECT, "square.png")
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
    assert shown.page.evaluate("() => [app.graph.nodes.map(node => [...node.pos]), [...app.canvas.ds.offset]]") == place, "the node or the canvas moved too"
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
    assert shown.page.evaluate("() => [...app.canvas.ds.offset]") != place, "the middle button over the pad moves the canvas"
    assert shift(inputs(shown, "ShiftNoise")) == (2, 1)


def test_the_pad_without_a_picture(shown):
    add(shown, "ShiftNoise")
    frame = shown.page.locator(f"{PAD} canvas").bounding_box()
    cell = min(frame["width"], frame["height"]) / 64
    before = pad_picture(shown)
    drag(shown, 10 * cell, 5 * cell)
    assert shift(inputs(shown, "ShiftNoise")) == (10, 5)
    assert (pad_picture(shown) != before).any()
    keep_node(shown, "ShiftNoise", "shift-pad-empty")


def test_the_pad_needs_no_drawing_of_the_canvas(shown):
    """As with Nodes 2.0: everything within one call, between two frames."""
    pad_with_picture(shown)
    pictures_of_it, sharpness = shown.page.evaluate(
        """() => {
            const node = app.graph.nodes.at(-1), pad = node.widgets.at(-1).element.querySelector('canvas')
            const set = (name, value) => { const found = node.widgets.find(widget => widget.name === name); found.value = value; found.callback(value) }
            const changes = [['x', 3], ['y', 4], ['fill', 'wrap']].map(change => () => set(...change))
            const pictures = [pad.toDataURL()]
            for (const change of [...changes, () => node.disconnectInput(0)]) { change(); pictures.push(pad.toDataURL()) }
            app.canvas.ds.scale = 4
            set('x', 5)
            return [pictures, pad.width / pad.clientWidth / devicePixelRatio]
        }"""
    )
    assert len(set(pictures_of_it)) == 5
    assert sharpness == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(("between", "width", "expected"), [("ImageInvert", None, 3), ("ImageScale", 384, 6)])
def test_the_pad_counts_cells_behind_a_node_without_a_picture(shown, between, width, expected):
    cell = pad_with_picture(shown)
    shown.page.evaluate(
        """([kind, width]) => {
            const find = kind => app.graph.nodes.find(node => node.type === kind)
            const between = LiteGraph.createNode(kind)
            app.graph.add(between)
            find('LoadImage').connect(0, between, 0)
            between.connect(0, find('VAEEncode'), 0)
            if (width) between.widgets.find(widget => widget.name === 'width').value = width
        }""",
        [between, width],
    )
    drag(shown, 3 * cell, 0)
    assert shift(inputs(shown, "ShiftNoise")) == (expected, 0)


def test_the_pad_survives_what_happens_to_nodes(shown):
    cell = pad_with_picture(shown)
    drag(shown, 3 * cell, 0)
    height = shown.page.locator(PAD).bounding_box()["height"]
    shown.page.evaluate(
        "() => { const node = app.graph.nodes.at(-1); node.setSize([node.size[0] + 100, node.size[1] + 100]); app.canvas.setDirty(true, true) }"
    )
    shown.page.evaluate(FRAMES)
    assert shown.page.locator(PAD).bounding_box()["height"] == pytest.approx(height + 100, abs=2)
    shown.page.evaluate("() => app.graph.nodes.at(-1).collapse()")
    shown.page.evaluate(FRAMES)
    assert not shown.page.locator(PAD).is_visible()
    shown.page.evaluate("() => app.graph.nodes.at(-1).collapse()")
    shown.page.evaluate(FRAMES)
    assert shown.page.locator(PAD).is_visible()
    shown.page.evaluate("() => { app.canvas.selectNode(app.graph.nodes.at(-1)); app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard() }")
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


# --- files of maps ---


@pytest.fixture(scope="module")
def maps_file(server):
    """A file of Save Noise Maps, and the picture that its maps give back."""
    saved = {"save": node("SaveNoiseMaps", noise_maps=["maps", 0], filename_prefix="noise_maps/frontend", precision="full")}
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
        app.canvas.canvas.dispatchEvent(new DragEvent(type, {{ dataTransfer, clientX: x, clientY: y, bubbles: true, cancelable: true }}))
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
    saved = shown.page.evaluate("() => app.graph.nodes.find(node => node.type === 'SaveNoiseMaps').serialize().widgets_values")
    assert saved == ["noise_maps/maps", "full"]


def test_a_saved_file_opens_its_workflow(page):
    """As a file that is dropped on the canvas does."""
    page.load(PACK / "example_workflows" / "Keep noise maps for another day.json")
    nodes = sorted(page.node_types())
    [entry] = [output.ui["noise_maps"][0] for output in page.queue().outputs.values() if "noise_maps" in output.ui]
    file = base64.b64encode(page.server.view(entry)).decode()
    page.load(PACK / "example_workflows" / "Shift a picture.json")
    assert sorted(page.node_types()) != nodes
    drop = "([name, data]) => app.handleFile(new File([Uint8Array.from(atob(data), character => character.charCodeAt(0))], name))"
    page.page.evaluate(drop, [entry["filename"], file])
    page.page.wait_for_function("count => app.graph.nodes.length === count", arg=len(nodes))
    assert sorted(page.node_types()) == nodes
