"""Workflows that were saved with an earlier version load and run as they did: `earlier` holds each
version's templates, their API prompts and the nodes' signatures as they were released. A new
version adds a folder; nothing in an old one changes."""

import json
from pathlib import Path

import pytest

from tests.comfyui.rig.workflows import check_lacks_only_downloads, check_pictures, needs_download, without_titles

EARLIER = Path(__file__).with_name("earlier")
VERSIONS = sorted(path.name for path in EARLIER.iterdir())
WORKFLOWS = sorted(EARLIER.glob("*/workflows/*.json"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")

each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")


def read(path):
    return json.loads(path.read_text("utf-8"))


def kept_prompt(workflow):
    return read(workflow.parents[1] / "prompts" / workflow.name)


def inputs_of(info):
    """(name, type, options) of each input, in the order in which the frontend makes widgets and
    sockets."""
    groups = [info["input"].get(group, {}) for group in ("required", "optional")]
    for name, (kind, *options) in [entry for group in groups for entry in group.items()]:
        settings = dict(options[0]) if options else {}
        if isinstance(kind, list):
            kind, settings["options"] = "COMBO", kind
        yield name, kind, settings


def widgets_of(info):
    return [name for name, kind, _ in inputs_of(info) if kind in WIDGETS]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_node_still_takes_what_it_took(server, version):
    now = server.object_info()
    for name, old in read(EARLIER / version / "nodes.json").items():
        new = now[name]
        widgets, before = widgets_of(new), widgets_of(old)
        assert widgets[: len(before)] == before, f"{name}: saved workflows hold widget values by position"
        found = {entry[0]: entry for entry in inputs_of(new)}
        for socket, kind, settings in inputs_of(old):
            _, kind_now, settings_now = found[socket]
            assert kind_now == kind, (name, socket)
            assert set(settings.get("options", [])) <= set(settings_now.get("options", [])), (name, socket)
            assert settings_now.get("min", 0) <= settings.get("min", 0), (name, socket)
            assert settings_now.get("max", 0) >= settings.get("max", 0), (name, socket)
        needed = [
            socket
            for socket in new["input"].get("required", {})
            if socket not in {entry[0] for entry in inputs_of(old)}
        ]
        assert needed == [], f"{name}: an old prompt lacks them; make them optional"
        assert new["output"][: len(old["output"])] == old["output"], name


@each_workflow
def test_it_opens_with_the_values_that_were_saved(page, workflow):
    page.load(workflow)
    assert page.missing() == []
    assert page.alerts() == []
    prompt, kept = without_titles(page.prompt()), without_titles(kept_prompt(workflow))
    assert set(prompt) == set(kept)
    for node_id, node in kept.items():
        assert prompt[node_id]["class_type"] == node["class_type"]
        assert {name: prompt[node_id]["inputs"].get(name) for name in node["inputs"]} == node["inputs"], node[
            "class_type"
        ]


@each_workflow
def test_its_prompt_is_taken(server, workflow):
    prompt = kept_prompt(workflow)
    if needs_download(prompt):
        check_lacks_only_downloads(server, prompt)
    elif "fast" in workflow.stem or "Push" in workflow.stem:
        check_pictures(server.queue(prompt))
    else:
        server.cancel(server.submit(prompt))
