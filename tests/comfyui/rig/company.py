"""What the tests of the nodes in company share: a second edit in a graph, masks of two halves, and
whether what a graph is given takes effect."""

import numpy as np

from tests.comfyui.rig.graphs import difference, graph, node, pictures

LORA = "random.safetensors"  # that the fixture `lora` writes
FEW = {"steps": 8, "skip": 3}


def edited(name, **changes):
    """One more edit of the graph, shown as "name"."""
    inputs = {
        "model": ["model", 0],
        "positive": ["target", 0],
        "negative": ["empty", 0],
        "noise_maps": ["maps", 0],
        "cfg": 3.5,
        "skip": -1,
    }
    return shown(name, f"{name} edit") | {f"{name} edit": node("NoiseMapEdit", **{**inputs, **changes})}


def shown(name, latent):
    return {
        f"{name} decoded": node("VAEDecode", samples=[latent, 0], vae=["model", 2]),
        name: node("PreviewImage", images=[f"{name} decoded", 0]),
    }


def apart(history, one, other):
    """Greatest difference, in 1/255, between two results."""
    return np.abs(pictures(history, one) - pictures(history, other)).max()


def split(x=96):
    """Nodes of a mask that is 1 left of x and 0 elsewhere, named "left side"."""
    return {
        "nothing": node("SolidMask", value=0.0, width=192, height=192),
        "part": node("SolidMask", value=1.0, width=x, height=192),
        "left side": node("MaskComposite", destination=["nothing", 0], source=["part", 0], x=0, y=0, operation="add"),
    }


SIDES = {**split(), "right side": node("InvertMask", mask=["left side", 0])}


def chunked_and_without(server, nodes, sockets):
    """What nodes on these sockets of the inversion and the edit do: the reconstruction's error, and
    how far an edit without them is from the picture, both in 1/255.

    The edit calls the model timestep by timestep, so it gives the picture back only if a chunk of 8
    timesteps predicts what a chunk of 1 does.
    """
    changes = graph(**nodes, maps={**sockets, **FEW, "chunk": 8}, edit={**sockets, "skip": -1})
    history = server.queue(changes | edited("without"))
    return difference(history), apart(history, "without", "round trip")
