"""The pack in the browser: what a person does with the nodes and templates there, by real clicks.
Pictures of it: out/screenshots/."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from tests.comfyui.rig.graphs import IDS
from tests.comfyui.rig.on_page import (
    EMPTY,
    FRAMES,
    NODE,
    SLOT_AT,
    add,
    at,
    at_widget,
    colors,
    inputs,
    near,
    node_ids,
    pad_picture,
    set_widgets,
    show,
    template,
    values,
    wait_until,
)
from tests.comfyui.rig.server import PACK
from tests.comfyui.rig.workflows import NEWER, WORKFLOWS

TYPE_COLOR = (0x0D, 0x94, 0x88)
CONTROL = "control_after_generate"
WATCH = """() => {
    const api = window.comfyAPI.api.api
    const note = (name, details) => window.seen.push({ name, at: performance.now(), ...details })
    const watch = (name, read) => api.addEventListener(name, event => note(name, read(event.detail)))
    if (!window.seen) {
        watch('progress', detail => ({ node: detail.node, value: detail.value, max: detail.max }))
        watch('b_preview_with_metadata', detail => ({ node: detail.displayNodeId, size: detail.blob.size }))
        for (const name of ['execution_interrupted', 'execution_success', 'execution_error']) watch(name, () => ({}))
    }
    window.seen = []
    performance.clearResourceTimings()
}"""
INTERRUPTED_AT = (
    "() => performance.getEntriesByType('resource').find(entry => entry.name.endsWith('/interrupt')).responseEnd"
)


# --- every node ---


def declared(definition):
    """The node's inputs as the server declares them: {name: default} of those with a widget, and
    the sockets."""
    widgets, sockets = {}, []
    for group in ("required", "optional"):
        for name, (kind, *options) in definition["input"].get(group, {}).items():
            options = options[0] if options else {}
            choices = kind if isinstance(kind, list) else options.get("options", [])
            if kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or isinstance(kind, list):
                first = choices[0] if choices else "" if kind == "STRING" else None
                widgets[name] = options.get("default", first)
                if control := options.get("control_after_generate"):
                    # Newer frontends name the widget as the node's option, in place of True, has it.
                    widgets[control if isinstance(control, str) else CONTROL] = "fixed"
            else:
                sockets.append(name)
    return widgets, sockets


@pytest.mark.parametrize("kind", IDS)
def test_every_node_appears_and_saves_only_its_own_values(shown, kind):
    definition = shown.server.object_info()[kind]
    widgets, sockets = declared(definition)
    # Files may have come since the page was opened.
    shown.page.evaluate("() => app.refreshComboInNodes()")
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
    assert len(found["tooltips"]) == len(sockets) + len(set(widgets) - {CONTROL, "fixed"}) + found["outputs"]
    assert all(found["tooltips"])
    assert found["fits"]
    assert set(inputs(shown, kind)) == set(widgets) - {CONTROL, "fixed"}


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
    assert (
        text.locator("img").evaluate_all(
            "images => images.filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
        )
        == []
    )
    if kind in ("EditFriendlyInvert", "ShiftNoise"):
        shown.keep(f"help-{kind}")
    shown.page.locator(".node-library-tab-button").click()  # closes it


# --- templates ---


def open_template(page, name):
    """Through the template browser, by clicks."""
    page.page.get_by_role("button", name="Templates", exact=True).click()
    dialog, folder = page.page.get_by_role("dialog"), page.server.folder
    dialog.get_by_role("option", name=folder).or_(dialog.get_by_role("button", name=folder)).click()
    page.page.wait_for_function(
        """() => document.querySelectorAll("[data-testid^='template-workflow-'] img").length > 5"""
    )
    page.keep("templates")
    # Without it only the first twelve are there until one scrolls.
    dialog.get_by_placeholder("Search").fill(name)
    card = page.page.get_by_test_id(f"template-workflow-{name}")
    is_shown = "card => [...card.querySelectorAll('img')].some(image => image.complete && image.naturalWidth > 0)"
    wait_until(page, lambda: card.evaluate(is_shown))
    return card


def press_run(page):
    page.page.get_by_role("button", name="Run", exact=True).filter(has_text="Run").click()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_template_opens_from_the_template_browser(shown, path):
    open_template(shown, path.stem).click()
    expected = Counter(entry["type"] for entry in json.loads(path.read_text("utf-8"))["nodes"])
    shown.page.wait_for_function("count => app.graph.nodes.length === count", arg=expected.total())
    assert Counter(shown.node_types()) == expected
    assert set(shown.missing()) <= NEWER
    assert shown.alerts() == []
    shown.page.wait_for_selector(".p-dialog-mask", state="detached")


def test_run_button_and_live_previews(shown):
    open_template(shown, "Shift a picture").click()
    shown.page.wait_for_function("() => app.graph.nodes.some(node => node.type === 'ShiftNoise')")
    set_widgets(shown, "EditFriendlyInvert", seed=1234)
    show(shown, "ShiftNoise")
    shown.page.evaluate(WATCH)
    press_run(shown)
    [edit] = node_ids(shown, "NoiseMapEdit")
    shown.page.wait_for_function(
        "id => seen.some(event => event.name === 'b_preview_with_metadata' && event.node === id)", arg=edit
    )
    shown.keep("live-preview")
    shown.page.wait_for_function("() => seen.some(event => event.name.startsWith('execution_'))")
    seen = shown.page.evaluate("() => seen")
    assert seen[-1]["name"] == "execution_success"
    for kind in ("EditFriendlyInvert", "NoiseMapEdit"):
        previews = [
            event
            for event in seen
            if event["name"] == "b_preview_with_metadata" and [event["node"]] == node_ids(shown, kind)
        ]
        assert len(previews) > 3, f"{kind} showed {len(previews)} previews"
        assert len({event["size"] for event in previews}) > 1, "every preview is the same"
        assert shown.page.evaluate(f"kind => {NODE}.imgs[0].naturalWidth > 0", kind)
    # The pad shows the picture that Draw Demo Scene shows.
    shown.page.wait_for_function(
        "() => app.graph.nodes.filter(node => node.type === 'PreviewImage').every(node => node.imgs?.[0].complete)"
    )
    shown.page.evaluate("() => app.canvas.setDirty(true, true)")
    shown.page.evaluate(FRAMES)
    assert near(pad_picture(shown), (247, 217, 26)).sum() > 500
    shown.keep("shifted")


def test_what_a_run_says_stands_on_the_nodes(shown):
    """The caption where it is connected, and the words that the demo model does not know."""
    shown.load(template("Edit a picture by text (fast)"))
    set_widgets(shown, "DrawDemoScene", color="orange")
    shown.page.evaluate(
        "() => { app.graph.nodes.find(node => node.title === 'Target prompt').widgets[0].value = 'a yellow cat' }"
    )
    shown.queue()
    source = "() => app.graph.nodes.find(node => node.title === 'Source prompt').widgets[0].value"
    wait_until(shown, lambda: shown.page.evaluate(source) == "a plain orange heart on a teal background")
    shown.page.get_by_text("does not know: cat").wait_for(timeout=10_000)
    shown.keep("unknown-words")


# --- cancel ---


@pytest.mark.parametrize("kind", ["EditFriendlyInvert", "NoiseMapEdit"])
def test_cancel_stops_soon_and_the_next_run_is_right(shown, kind):
    def short_run():
        shown.load(template("Reconstruct a picture"))
        set_widgets(shown, "EditFriendlyInvert", steps=12, skip=4)
        set_widgets(shown, "NoiseMapEdit", skip=4)
        return shown.queue()

    before = short_run()
    # With skip 850 there are few steps to invert, so that the edit begins soon.
    skip = 0 if kind == "EditFriendlyInvert" else 850
    set_widgets(shown, "EditFriendlyInvert", steps=1000, skip=skip, chunk=1 if skip == 0 else 0)
    set_widgets(shown, "NoiseMapEdit", skip=skip)
    [running] = node_ids(shown, kind)
    shown.page.evaluate(WATCH)
    press_run(shown)
    shown.page.wait_for_function(
        "id => seen.some(event => event.name === 'progress' && event.node === id && event.value >= 3)", arg=running
    )
    shown.page.get_by_role("button", name="Cancel current run").click()
    shown.page.wait_for_function("() => seen.some(event => event.name.startsWith('execution_'))")
    seen = shown.page.evaluate("() => seen")
    interrupted_at = shown.page.evaluate(INTERRUPTED_AT)
    reports = [event for event in seen if event["name"] == "progress"]
    assert seen[-1]["name"] == "execution_interrupted"
    assert reports[-1]["node"] == running
    assert reports[-1]["value"] < 0.9 * reports[-1]["max"]
    # The step that ran; the others were on their way, since a busy browser reads reports later than
    # the answer.
    assert sum(event["at"] > interrupted_at for event in reports) <= 20
    shown.server.post("/free", {"free_memory": True})  # newer ones keep the results of the run before the last, too
    shown.page.evaluate(WATCH)
    again = short_run()
    assert any(
        event["name"] == "progress" and event["node"] == running for event in shown.page.evaluate("() => seen")
    ), "nothing was computed anew"
    old, new = ({key: o.images for key, o in run.outputs.items() if o.images} for run in (before, again))
    shared = old.keys() & new.keys()  # what was kept is told again or not
    assert len(shared) >= 2
    for key in shared:
        for image, other in zip(old[key], new[key], strict=True):
            np.testing.assert_array_equal(np.asarray(image), np.asarray(other))


# --- seeds, colours of links ---


def test_seeds_are_fixed_on_new_nodes_and_kept_on_load(shown):
    workflow = template("Shift a picture")
    for saved in workflow["nodes"]:
        saved["widgets_values"] = [
            "randomize" if value == "fixed" else value for value in saved.get("widgets_values") or []
        ]
    shown.load(workflow)
    assert values(shown, "EditFriendlyInvert")["control_after_generate"] == "randomize"
    assert values(shown, "ShiftNoise")["control_after_generate"] == "randomize"
    shown.load(EMPTY)
    add(shown, "KSampler")
    assert values(shown, "KSampler")["control_after_generate"] == "randomize", "a stock node's seed is not ours"


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.usefixtures("no_errors")
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
