"""The prompts that the tests queue: a picture inverted and edited, with what a test changes; and
what came out of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.comfyui.rig.server import PromptError

GOLDEN = Path(__file__).parents[1] / "golden" / "nodes.json"
IDS = [
    "EditFriendlyInvert",
    "EditFriendlyInvertAdvanced",
    "NoiseMapEdit",
    "NoiseMapSampler",
    "AddEdit",
    "EditGuider",
    "MaskFromPrompts",
    "EditGrid",
    "ShiftNoise",
    "ColorMaskEdit",
    "MixNoiseMaps",
    "FlipNoiseMaps",
    "ScaleNoiseMaps",
    "SaveNoiseMaps",
    "LoadNoiseMaps",
    "NoiseMapStats",
    "EditMetrics",
    "LoadDemoModel",
    "DrawDemoScene",
    "PromptPair",
    "PromptToPrompt",
    "MutualSelfAttention",
    "EditDirection",
]
# The nodes' names as a person sees them.
SEEN = {kind: info["display_name"] for kind, info in json.loads(GOLDEN.read_text("utf-8")).items()}
SOURCE, TARGET = "a striped red star on a blue background", "a striped green star on a blue background"


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def text(words):
    return node("CLIPTextEncode", clip=["model", 1], text=words)


def graph(**changes):
    """Scene -> VAE -> inversion -> edit -> VAE -> "out"; a change replaces a node, or some inputs
    of one (a dict without class_type)."""
    nodes = {
        "model": node("LoadDemoModel"),
        "scene": node("DrawDemoScene", shape="star", fill="striped", color="red", background="blue", layout=4),
        "latent": node("VAEEncode", pixels=["scene", 0], vae=["model", 2]),
        "source": text(SOURCE),
        "target": text(SOURCE),
        "empty": text(""),
        "maps": node(
            "EditFriendlyInvert",
            model=["model", 0],
            positive=["source", 0],
            negative=["empty", 0],
            latent=["latent", 0],
            steps=12,
            skip=4,
            cfg=3.5,
            eta=1.0,
            solver="first_order",
            scheduler="ddim_uniform",
            seed=0,
            chunk=0,
        ),
        "edit": node(
            "NoiseMapEdit",
            model=["model", 0],
            positive=["target", 0],
            negative=["empty", 0],
            noise_maps=["maps", 0],
            cfg=3.5,
            skip=4,
        ),
        "decoded": node("VAEDecode", samples=["edit", 0], vae=["model", 2]),
        "out": node("PreviewImage", images=["decoded", 0]),
        "plain": node("VAEDecode", samples=["latent", 0], vae=["model", 2]),
        "round trip": node("PreviewImage", images=["plain", 0]),
    }
    for name, change in changes.items():
        name = name.replace("_", " ") if name == "round_trip" else name
        if "class_type" in change:
            nodes[name] = change
        else:
            nodes[name]["inputs"].update(change)
    return nodes


def pictures(history, name):
    return np.stack([np.asarray(image.convert("RGB"), dtype=np.int16) for image in history[name].images])


def difference(history):
    """Greatest difference, in 1/255, between the result and a plain round trip through the VAE."""
    return np.abs(pictures(history, "out") - pictures(history, "round trip")).max()


def refusal(server, **changes):
    with pytest.raises(PromptError) as caught:
        server.queue(graph(**changes))
    return caught.value.message


def masked(value_left, value_right):
    """Nodes that set a noise mask with two halves on the latent."""
    return {
        "left": node("SolidMask", value=value_left, width=192, height=192),
        "right": node("SolidMask", value=value_right, width=96, height=192),
        "halves": node(
            "MaskComposite",
            destination=["left", 0],
            source=["right", 0],
            x=96,
            y=0,
            operation="add" if value_right else "multiply",
        ),
        "masked": node("SetLatentNoiseMask", samples=["latent", 0], mask=["halves", 0]),
    }
