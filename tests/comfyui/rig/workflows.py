"""What the tests of saved workflows and their API prompts ask."""

import pytest

from tests.comfyui.rig.server import PACK, PromptError

WORKFLOWS = sorted((PACK / "example_workflows").glob("*.json"))
# Stock nodes that the oldest ComfyUI that is tested lacks.
NEWER = {"ImageCompare"}
# The widgets in which stock loaders name a file that the user downloads, or has.
DOWNLOADS = {
    "CLIPLoader": "clip_name",
    "CheckpointLoaderSimple": "ckpt_name",
    "ControlNetLoader": "control_net_name",
    "LoadVideo": "file",
    "LoraLoader": "lora_name",
    "UNETLoader": "unet_name",
    "VAELoader": "vae_name",
}


def skip_if_nodes_are_newer(missing):
    assert set(missing) <= NEWER
    if missing:
        pytest.skip(f"this ComfyUI has no {', '.join(missing)}")


def without_titles(prompt):
    """What is run, less what versions of stock nodes differ in: newer frontends leave out what
    PreviewAny only shows, and newer video nodes have more inputs."""
    differs = {"PreviewAny": {"preview"}, "CreateVideo": {"bit_depth"}, "SaveVideo": {"format.codec"}}
    return {
        node_id: {
            "class_type": kind,
            "inputs": {name: value for name, value in node["inputs"].items() if name not in differs.get(kind, ())},
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
        if error["type"] not in ("value_not_in_list", "custom_validation_failed")
        or error["extra_info"]["input_name"] != DOWNLOADS.get(error["node_type"])
    ]
    assert other == []
