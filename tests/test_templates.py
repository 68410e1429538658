"""Templates, read as the prompts that ComfyUI queues."""

import json
from pathlib import Path

import pytest

PROMPTS = sorted((Path(__file__).parent / "comfyui" / "prompts").glob("*.json"))


def upstream(prompt, start):
    """The class of every node that a node hangs on, its own first."""
    seen, ahead = {}, [start]
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen[name] = prompt[name]["class_type"]
            links = (v for v in prompt[name]["inputs"].values() if isinstance(v, list) and len(v) == 2)
            ahead += [link[0] for link in links if link[0] in prompt]
    return list(seen.values())


def ends(prompt):
    """The nodes that no other node reads: what shows or saves something."""
    read = {v[0] for node in prompt.values() for v in node["inputs"].values() if isinstance(v, list) and v}
    return [name for name in prompt if name not in read]


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_nothing_that_is_shown_hangs_on_the_source_alone(path):
    """ComfyUI runs what validates and leaves out the rest without a word: a preview of the source
    alone would hide that the edit beside it did not run."""
    prompt = json.loads(path.read_text("utf-8"))
    assert ends(prompt)
    for name in ends(prompt):
        classes = upstream(prompt, name)
        assert any("Invert" in kind or "NoiseMaps" in kind for kind in classes), (
            prompt[name]["class_type"],
            classes,
        )


def test_it_is_noticed():
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "EditFriendlyInvert", "inputs": {"latent": ["1", 0]}},
    }
    assert ends(prompt) == ["2", "3"]
    assert upstream(prompt, "2") == ["PreviewImage", "LoadImage"]
