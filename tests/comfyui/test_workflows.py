"""Every example workflow: the kept API prompt runs on the real server, and is what the frontend
makes of the workflow."""

import json

import pytest

from tests.comfyui.rig.server import PACK
from tests.comfyui.rig.summary import skip_without_matplotlib
from tests.comfyui.rig.workflows import (
    WORKFLOWS,
    check_lacks_only_downloads,
    check_pictures,
    needs_download,
    skip_if_nodes_are_newer,
    without_titles,
)

PROMPTS = PACK / "tests" / "comfyui" / "prompts"
HOW_TO = "write it with: python -m tests.comfyui.rig.browser example_workflows/*.json --api tests/comfyui/prompts/"


@pytest.fixture(scope="module", params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request):
    """Of the module, so that all tests of one workflow come one after the other."""
    return request.param


def kept_prompt(workflow):
    path = PROMPTS / workflow.name
    assert path.is_file(), f"{workflow.name} has no API prompt kept; {HOW_TO}"
    return json.loads(path.read_text("utf-8"))


def skip_if_nothing_can_plot(server, prompt):
    if any(node["class_type"] == "NoiseMapStats" for node in prompt.values()):
        skip_without_matplotlib(server.python)


def test_no_prompt_without_its_workflow():
    assert {path.name for path in PROMPTS.glob("*.json")} == {path.name for path in WORKFLOWS}


def test_runs(server, workflow):
    prompt = kept_prompt(workflow)
    skip_if_nodes_are_newer({node["class_type"] for node in prompt.values()} - set(server.object_info()))
    skip_if_nothing_can_plot(server, prompt)
    if needs_download(prompt):
        check_lacks_only_downloads(server, prompt)
    else:
        check_pictures(server.queue(prompt))


MEASURE = """async () => {
    await app.extensionManager.setting.set('Comfy.Minimap.Visible', true)
    await new Promise(done => setTimeout(done, 300))
    const box = document.querySelector('.litegraph-minimap').getBoundingClientRect()
    const { left, top } = app.canvas.canvas.getBoundingClientRect()
    const under = app.graph.nodes.filter(node => node.type === 'MarkdownNote').filter(({ boundingRect }) => {
        const [x, y] = app.canvas.ds.convertOffsetToCanvas([boundingRect[0], boundingRect[1]])
        const [width, height] = [boundingRect[2], boundingRect[3]].map(length => length * app.canvas.ds.scale)
        const [right, bottom] = [left + x + width, top + y + height]
        return left + x < box.right && right > box.left && top + y < box.bottom && bottom > box.top
    })
    return [app.canvas.ds.scale, under.map(note => note.title), box.width]
}"""


def test_opens_readable(page, workflow):
    """As on a laptop: large enough for the frontend to draw the text, and no note under the
    minimap."""
    with page.whole(1680, 857):
        page.load(workflow)
        scale, under, minimap = page.page.evaluate(MEASURE)
    assert scale >= 0.62
    assert under == []
    if "linearData" in json.loads(workflow.read_text("utf-8")).get("extra", {}) and not minimap:
        pytest.skip("this frontend opens it as a form")
    assert minimap > 100, "no minimap was to be seen"


def test_opens_in_the_browser(page, workflow):
    """After test_runs, so that ComfyUI has the pictures of the same prompt, and does not compute
    them again."""
    page.load(workflow)
    assert page.alerts() == []
    skip_if_nodes_are_newer(page.missing())
    prompt = page.prompt()
    assert page.our_errors() == []
    assert without_titles(prompt) == without_titles(kept_prompt(workflow)), (
        f"the kept prompt is not what the frontend makes of {workflow.name}; {HOW_TO}"
    )
    skip_if_nothing_can_plot(page.server, prompt)
    if not needs_download(prompt):
        check_pictures(page.queue())
        assert page.our_errors() == []
