"""Several pictures in a batch or in a list, and several prompts for one inversion."""

import numpy as np
import pytest

from tests.comfyui.rig.company import FEW, edited
from tests.comfyui.rig.graphs import SOURCE, TARGET, graph, node, pictures, text

SCENES = {
    "second": node("DrawDemoScene", shape="ring", fill="dotted", color="red", background="pink", layout=9),
    "third": node("DrawDemoScene", shape="heart", fill="plain", color="yellow", background="green", layout=2),
}


def batched(name, sources):
    """Nodes that join three IMAGE sockets to a batch."""
    pair = node("ImageBatch", image1=sources[0], image2=sources[1])
    return {f"{name} 1, 2": pair, name: node("ImageBatch", image1=[f"{name} 1, 2", 0], image2=sources[2])}


def alone(i, latent, **inputs):
    """Nodes of an edit of one latent by itself, shown as "alone i"."""
    maps = {**graph()["maps"]["inputs"], **FEW, "latent": [latent, 0], "seed": i}
    return {
        f"maps {i}": node("EditFriendlyInvert", **maps),
        **edited(f"alone {i}", noise_maps=[f"maps {i}", 0], **inputs),
    }


@pytest.mark.parametrize("masks", [0, 1, 3])
def test_three_pictures_in_a_batch_are_edited_as_each_alone(server, masks):
    scenes = ["scene", *SCENES]
    nodes = {
        **SCENES,
        **batched("pictures", [[scene, 0] for scene in scenes]),
        **{f"shape {i}": node("MaskToImage", mask=[scene, 1]) for i, scene in enumerate(scenes)},
        **batched("shapes", [[f"shape {i}", 0] for i in range(3)]),
        "masks": node("ImageToMask", image=["shapes", 0], channel="red"),
        "masked": node("SetLatentNoiseMask", samples=["latent", 0], mask=["masks", 0] if masks == 3 else ["scene", 1]),
    }
    for i, scene in enumerate(scenes):
        nodes[f"latent {i}"] = node("VAEEncode", pixels=[scene, 0], vae=["model", 2])
        nodes[f"masked {i}"] = node(
            "SetLatentNoiseMask", samples=[f"latent {i}", 0], mask=[scene if masks == 3 else "scene", 1]
        )
        nodes |= alone(i, f"masked {i}" if masks else f"latent {i}", cfg=5.0)
    maps = {**FEW, "latent": ["masked" if masks else "latent", 0]}
    history = server.queue(
        graph(
            **nodes,
            latent={"pixels": ["pictures", 0]},
            target={"text": TARGET},
            maps=maps,
            edit={"cfg": 5.0, "skip": -1},
        )
    )
    result, each = pictures(history, "out"), np.concatenate([pictures(history, f"alone {i}") for i in range(3)])
    assert np.abs(result - each).max() <= 1
    assert (np.abs(result - pictures(history, "round trip")).max((1, 2, 3)) > 20).all()


def test_a_list_of_pictures_runs_through_once_for_each(server):
    nodes = {
        **SCENES,
        **batched("pictures", [["scene", 0], ["second", 0], ["third", 0]]),
        "list": node("RebatchImages", images=["pictures", 0], batch_size=1),
        "third latent": node("VAEEncode", pixels=["third", 0], vae=["model", 2]),
        **alone(0, "third latent"),
    }
    history = server.queue(
        graph(**nodes, latent={"pixels": ["list", 0]}, target={"text": TARGET}, maps=FEW, edit={"skip": -1})
    )
    assert len(pictures(history, "out")) == 3
    assert np.abs(pictures(history, "out")[2:] - pictures(history, "alone 0")).max() <= 1
    assert (np.abs(pictures(history, "out") - pictures(history, "round trip")).max((1, 2, 3)) > 20).all()


def test_a_list_of_prompts_edits_one_inversion_once_for_each(server):
    prompts = [TARGET, SOURCE, "a dotted green ring on a pink background"]
    nodes = {"prompts": node("TestLines", text="\n".join(prompts)), "last": text(prompts[2])} | edited(
        "alone", positive=["last", 0]
    )
    history = server.queue(graph(**nodes, target={"text": ["prompts", 0]}, maps=FEW, edit={"skip": -1}))
    first, second, third = pictures(history, "out")
    assert np.abs(second - pictures(history, "round trip")[0]).max() <= 1
    assert np.abs(third - pictures(history, "alone")[0]).max() <= 1
    assert np.abs(first - second).max() > 20
