"""The colour control of web/color_control.js. Pictures of it: out/screenshots/."""

import numpy as np

from ddpm_core.demo import scenes
from tests.comfyui.rig.on_page import (
    FRAMES,
    add,
    inputs,
    keep_node,
    set_widgets,
    show,
    template,
    type_into,
    undo,
    values,
)


def test_the_colour_control_and_the_text_follow_each_other(shown):
    add(shown, "ColorMaskEdit")
    control = shown.page.locator("input[type=color]")
    assert control.input_value() == "#1e90ff"
    control.fill("#12ab34")
    assert inputs(shown, "ColorMaskEdit")["color"] == "#12ab34"
    keep_node(shown, "ColorMaskEdit", "colour-control")
    typed_colours = (("#f80", "#ff8800"), (" AbCdEf ", "#abcdef"), ("forestgreen", "#228b22"), ("0a0", "#00aa00"))
    for typed, expected in typed_colours:
        type_into(shown, "ColorMaskEdit", "color", typed)
        assert inputs(shown, "ColorMaskEdit")["color"] == typed
        assert control.input_value() == expected
        assert control.get_attribute("aria-invalid") == "false"
    type_into(shown, "ColorMaskEdit", "color", "greenish")
    assert control.input_value() == "#00aa00"
    assert control.get_attribute("aria-invalid") == "true"
    assert shown.page.get_by_title('"greenish" is not a colour').is_visible()
    keep_node(shown, "ColorMaskEdit", "colour-control-invalid")
    control.fill("#0000ff")
    assert inputs(shown, "ColorMaskEdit")["color"] == "#0000ff"
    undo(shown)
    assert values(shown, "ColorMaskEdit")["color"] == "greenish"


def test_the_colour_control_needs_no_drawing_of_the_canvas(shown):
    """As with Nodes 2.0: everything within one call, between two frames."""
    found = shown.page.evaluate(
        """() => {
            const node = LiteGraph.createNode('ColorMaskEdit')
            const [input] = node.widgets.at(-1).element.querySelectorAll('input')
            const text = node.widgets.find(widget => widget.name === 'color')
            const look = () => [input.value, input.parentElement.style.background]
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


def test_a_picked_colour_arrives_in_the_picture(shown):
    shown.load(template("Push a colour into a region"))
    show(shown, "ColorMaskEdit")
    shown.page.locator("input[type=color]").fill("#8020c0")
    history = shown.queue()
    prompt = shown.server.get(f"/history/{history.prompt_id}")[history.prompt_id]["prompt"][2]
    assert [entry["inputs"]["color"] for entry in prompt.values() if entry["class_type"] == "ColorMaskEdit"] == [
        "#8020c0"
    ]
    red, green, blue = color_inside(history, prompt)
    assert blue > green + 30
    assert red > green + 10
    shown.page.evaluate(FRAMES)
    shown.keep("colour-picked")


def color_inside(history, prompt):
    """The mean colour of the edited picture inside the shape that was drawn."""
    [drawn] = [entry["inputs"] for entry in prompt.values() if entry["class_type"] == "DrawDemoScene"]
    words = {name: drawn[name] for name in ("shape", "fill", "color", "background")}
    inside = scenes.coverage([scenes.scene_with(drawn["layout"], **words)])[0, 0].numpy() > 0.8
    [shown] = [history[name] for name, entry in prompt.items() if entry["class_type"] == "PreviewImage"]
    [edited] = shown.images
    return np.asarray(edited.convert("RGB"), dtype=float)[inside].mean(0)


def test_nodes_2_have_the_colour_control(nodes_2):
    nodes_2.load(template("Push a colour into a region"))
    nodes_2.page.wait_for_function("() => document.querySelectorAll('[data-node-id]').length > 5")
    show(nodes_2, "ColorMaskEdit")
    control = nodes_2.page.locator("[data-node-id] input[type=color]")
    control.wait_for()
    control.fill("#12ab34")
    assert inputs(nodes_2, "ColorMaskEdit")["color"] == "#12ab34"
    set_widgets(nodes_2, "ColorMaskEdit", color="forestgreen")
    assert control.input_value() == "#228b22"
    strength = nodes_2.page.get_by_test_id("widget-layout-field-label").get_by_text("strength", exact=True)
    assert control.bounding_box()["y"] > strength.bounding_box()["y"], "it lies over other inputs"
    nodes_2.keep("nodes-2-colour")
