"""200 edits of one inversion in one server process: memory does not grow, and the last edits are as
fast as the first."""

import itertools
import json
import statistics

import pytest

from ddpm_core.demo.scenes import BACKGROUNDS, COLORS, SHAPES
from tests.comfyui.rig import server as server_module
from tests.comfyui.rig.graphs import graph, node, pictures

EDITS = 200
# The edits after which the server's tensors are counted; the first count takes memory of its own.
COUNTED = (1, 10, EDITS)


@pytest.fixture(scope="module")
def server():
    """A server of its own: what other tests left in the shared one would count."""
    reason = server_module.why_not()
    if reason:
        pytest.skip(f"COMFYUI NOT TESTED: {reason}")
    with server_module.Server() as running:
        yield running


def queue_edits(server, count):
    """ComfyUI's process after each edit: rss in bytes, seconds of processor time, and after the
    COUNTED ones its tensors."""
    words = [
        f"a plain {color} {shape} on a {background} background"
        for color, shape, background in itertools.product(COLORS, SHAPES, BACKGROUNDS)
    ]
    states, shown = [], set()
    for i, caption in enumerate(words[:count], start=1):
        prompt = graph(
            small=node("ImageScale", image=["scene", 0], upscale_method="area", width=96, height=96, crop="disabled"),
            latent={"pixels": ["small", 0]},
            target={"text": caption},
            maps={"steps": 8, "skip": 3},
            edit={"skip": 3, "cfg": 5.0},
            state=node("ServerState", image=["decoded", 0], count=i in COUNTED),
        )
        history = server.queue(prompt)
        states.append(json.loads(history["state"].text[0]))
        shown.add(pictures(history, "out").tobytes())
    assert len(shown) == count  # each an edit of its own, none from the cache
    return states


def test_200_edits_neither_grow_nor_slow_down(server):
    states = queue_edits(server, EDITS)
    _, tenth, last = (states[i - 1] for i in COUNTED)
    assert last["tensors"] <= tenth["tensors"] + 5
    assert last["bytes"] <= tenth["bytes"] + 1e6
    # A plain KSampler in this loop adds 4 MB: ComfyUI's history of prompts.
    assert last["rss"] <= tenth["rss"] + 20e6
    # Of the processor: other programs run too.
    seconds = [after["seconds"] - before["seconds"] for before, after in itertools.pairwise(states)]
    early, late = statistics.median(seconds[10:30]), statistics.median(seconds[-20:])
    assert late <= 1.5 * early
