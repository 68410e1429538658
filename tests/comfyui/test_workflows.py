"""Every example workflow: the kept API prompt runs on the real server, and is what the frontend
makes of the workflow."""

import json

import pytest

from tests.comfyui.rig.server import PACK, PromptError, lacks_matplotlib

WORKFLOWS = sorted((PACK / "example_workflows").glob("*.json"))
PROMPTS = PACK / "tests" / "comfyui" / "prompts"
HOW_TO = "write it with: python -m tests.comfyui.browser example_workflows/*.json --api tests/comfyui/prompts/"
# The widgets in which stock loaders name a file that the user downloads.
DOWNLOADS = {
    "CheckpointLoaderSimple": "ckpt_name",
    "ControlNetLoader": "control_net_name",
    "LoraLoader": "lora_name",
    "UNETLoader": "unet_name",
    "VAELoader": "vae_name",
}

each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)


def kept_prompt(workflow):
    path = PROMPTS / workflow.name
    assert path.is_file(), f"{workflow.name} has no API prompt kept; {HOW_TO}"
    return json.loads(path.read_text("utf-8"))


def without_titles(prompt):
    """What is run; newer frontends leave out what PreviewAny only shows."""
    shown = {"PreviewAny": {"preview"}}
    return {
        node_id: {
            "class_type": kind,
            "inputs": {name: value for name, value in node["inputs"].items() if name not in shown.get(kind, ())},
        }
        for node_id, node in prompt.items()
        for kind in [node["class_type"]]
    }


def needs_download(prompt):
    """Whether the prompt runs a loader; one that nothing is connected to is there for the user's
    own model."""
    loaders = {node_id for node_id, node in prompt.items() if node["class_type"] in DOWNLOADS}
    return any(
        isinstance(value, list) and value[0] in loaders for node in prompt.values() for value in node["inputs"].values()
    )


def skip_if_nothing_can_plot(server, prompt):
    if any(node["class_type"] == "NoiseMapStats" for node in prompt.values()) and lacks_matplotlib(server.python):
        pytest.skip(
            f"NOISE MAP STATS NOT TESTED: {server.python} has no matplotlib; install the pack's requirements.txt there"
        )


def check_pictures(history):
    assert history.images, "no picture came out"
    for image in history.images:
        assert any(low < high for low, high in image.convert("RGB").getextrema()), (
            "a picture of a single colour came out"
        )


def check_lacks_only_downloads(server, prompt):
    with pytest.raises(PromptError) as caught:
        server.submit(prompt)
    assert caught.value.kind == "validation"
    other = [
        error
        for error in caught.value.errors
        if error["type"] != "value_not_in_list"
        or error["extra_info"]["input_name"] != DOWNLOADS.get(error["node_type"])
    ]
    assert other == []


@pytest.mark.skipif(not PROMPTS.is_dir(), reason="no prompts are kept yet")
def test_no_prompt_without_its_workflow():
    assert {path.name for path in PROMPTS.glob("*.json")} <= {path.name for path in WORKFLOWS}


@each_workflow
def test_runs(server, workflow):
    prompt = kept_prompt(workflow)
    skip_if_nothing_can_plot(server, prompt)
    if needs_download(prompt):
        check_lacks_only_downloads(server, prompt)
    else:
        check_pictures(server.queue(prompt))


@each_workflow
def test_opens_in_the_browser(page, workflow):
    page.load(workflow)
    assert page.alerts() == []
    assert page.missing() == []
    prompt = page.prompt()
    assert page.our_errors() == []
    assert without_titles(prompt) == without_titles(kept_prompt(workflow)), (
        f"the kept prompt is not what the frontend makes of {workflow.name}; {HOW_TO}"
    )
    skip_if_nothing_can_plot(page.server, prompt)
    if not needs_download(prompt):
        check_pictures(page.queue())
        assert page.our_errors() == []
