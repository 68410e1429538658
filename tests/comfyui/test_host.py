"""What the nodes hand to ComfyUI and take from it: previews, masks, files, memory; numbers from
ComfyUI's own process."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d
from torch.testing import assert_close

from tests.comfyui.rig.server import PACK, RIG

# 16 for each of 4 steps and of the latent's values.
MAPS_BYTES = 16 * (6 - 2) * 2 * 4 * 32 * 32
LITTLE, ENOUGH = 1.99 * MAPS_BYTES, 2.01 * MAPS_BYTES


@pytest.fixture(scope="module")
def inside(server, tmp_path_factory):
    """(numbers, texts) of host_in_process.py."""
    path = tmp_path_factory.mktemp("host") / "out.safetensors"
    server.run_script(RIG / "host_in_process.py", PACK, path, LITTLE, ENOUGH)
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata()


@pytest.mark.parametrize(("work", "latents"), [("inversion", slice(0, -1)), ("edit", slice(1, None))])
def test_a_preview_gets_the_prediction_and_the_latent_of_its_step(inside, work, latents):
    """The inversion tells the latents that it asked the model about, the edit those that it came
    to."""
    numbers, _ = inside
    assert_close(numbers[f"{work}_predictions"], numbers["predictions"], rtol=0, atol=1e-4)
    assert_close(numbers[f"{work}_latents"], numbers["latents"][latents], rtol=0, atol=1e-3)
    apart = numbers["predictions"] - numbers["latents"][latents]
    assert (apart.abs().amax((1, 2, 3, 4)) > 0.01).sum() >= 3


def test_the_model_and_the_next_node_are_told_of_the_noise_mask(inside):
    numbers, texts = inside
    half = torch.zeros(2, 1, 32, 32)
    half[..., :16] = 1
    assert_close(numbers["passed_mask"], half)
    for name in ("inverted_mask", "edited_mask"):
        assert_close(numbers[name], half.expand_as(numbers[name]))
    assert json.loads(texts["plain"]) == [True, True, ["samples"]]


def test_a_cell_of_a_mask_is_the_mean_of_its_pixels(inside):
    numbers, _ = inside
    pixels = numbers["pixels"]
    expected = avg_pool2d(pixels[:, None], 8)
    assert_close(numbers["cells"], expected.repeat(2, 1, 1, 1))
    frames = avg_pool2d(pixels, 8).mean(0)  # frames 0 and 1 of 0, 1, 0, 1, and frames 2 and 3
    assert_close(numbers["video_cells"], frames.expand(1, 1, 2, 3, 5))


def test_maps_that_take_more_memory_than_is_free_are_not_loaded(inside):
    _, texts = inside
    assert texts["enough"] == "loaded"
    words = ("LoadNoiseMaps, input 'file'", "MB of memory", "are free")
    assert all(word in texts["little"] for word in words), texts["little"]


def test_a_file_of_another_time_is_another_file(inside):
    first, same, later = json.loads(inside[1]["fingerprints"])
    assert first == same
    assert first != later


def test_maps_that_take_more_than_half_of_the_free_memory_are_warned_of(inside):
    _, texts = inside
    little, enough = (texts[f"free {amount}"] for amount in (LITTLE, ENOUGH))
    assert "WARNING EditFriendlyInvert: the noise maps of 4 steps" in little
    assert all(word in little for word in ("more skip", "smaller picture", "smaller batch"))
    assert "WARNING" not in enough
