"""The stream of random numbers: saved workflows and files depend on every place in it."""

import pytest
import torch

from ddpm_core.noise import path_noise, scale_noise, sdedit_noise, shift_noise

ITEM = (4, 6, 8)
SHAPE = (3, *ITEM)
TOTAL, REST = 9, 5


def stream(count: int, seed: int) -> torch.Tensor:
    """(count, C, *S) of one generator, in one call."""
    return torch.randn(count, *ITEM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("item", range(3))
def test_each_draw_has_its_place_in_the_stream_of_its_item(item):
    seed = 40 + item
    shifted = shift_noise(SHAPE, 40, TOTAL, REST)
    draws = {
        "path": (path_noise(SHAPE, 40, TOTAL), stream(TOTAL, seed)),
        "shift's path": (shifted[0], stream(TOTAL + 2 * REST, seed)[TOTAL : TOTAL + REST]),
        "shift's z": (shifted[1], stream(TOTAL + 2 * REST, seed)[TOTAL + REST :]),
        "scale": (scale_noise(SHAPE, 40, TOTAL, REST), stream(TOTAL + 3 * REST, seed)[TOTAL + 2 * REST :]),
        "sdedit": (sdedit_noise(SHAPE, 40, TOTAL, REST), stream(2 * TOTAL + 2, seed)[2 * TOTAL + 2 - REST :]),
    }
    for name, (drawn, expected) in draws.items():
        assert drawn.dtype == torch.float32
        assert drawn.shape[1:] == SHAPE, name
        assert torch.equal(drawn[:, item], expected), name


def test_seeds_go_round_after_the_last_one():
    last = path_noise(SHAPE, 2**64 - 1, 2)
    assert torch.equal(last[:, 0], stream(2, 2**64 - 1))
    assert torch.equal(last[:, 1], stream(2, 0))
