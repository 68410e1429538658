"""Half precision: the picture comes back, on a CPU and on a GPU, and a real lack of a GPU's memory
halves the chunk."""

import pytest
import torch
from torch.testing import assert_close

from ddpm_core import Plan, invert, replay
from ddpm_core.demo.model import FOLDER
from ddpm_core.demo.scenes import caption, render, scene_with
from ddpm_core.lab.calls import UNetCalls
from ddpm_core.models.stable_diffusion import Pipeline
from tests.comfyui.rig.summary import UNTESTED

SCENE = scene_with(4, shape="star", fill="striped", color="red", background="blue")
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason=f"HALF PRECISION ON A GPU {UNTESTED}torch has no CUDA device here"
)


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", torch.bfloat16),
        pytest.param("cuda", torch.float16, marks=needs_gpu),
        pytest.param("cuda", torch.bfloat16, marks=needs_gpu),
    ],
)
def test_the_picture_comes_back_to_one_of_255(device, dtype):
    model = Pipeline.load(FOLDER, device, dtype)
    x0 = model.encode(render([SCENE])).to(device)
    denoise = model.denoiser(caption(SCENE), guidance=3.5)
    maps = invert(denoise, x0, Plan(model.sigmas(8), skip=3), chunk=8)
    back = replay(denoise, maps, device=device)
    assert (model.decode(back) - model.decode(x0)).abs().max() <= 1 / 255
    other = replay(model.denoiser("a plain green moon on a yellow background", guidance=3.5), maps, device=device)
    assert (model.decode(other) - model.decode(x0)).abs().max() > 20 / 255


@needs_gpu
def test_a_limit_of_the_memory_halves_the_chunk():
    model = Pipeline.load(FOLDER, "cuda", torch.float16)
    x0 = torch.randn(1, 4, 96, 96, generator=torch.Generator().manual_seed(0)).cuda()
    denoise, plan = model.denoiser(caption(SCENE), guidance=3.5), Plan(model.sigmas(33), skip=1)

    def inverted(chunk):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        with UNetCalls(model.pipe.unet) as calls:
            return invert(denoise, x0, plan, chunk=chunk), calls.sizes, torch.cuda.max_memory_reserved()

    expected, sizes, little = inverted(4)
    _, whole, much = inverted(32)
    assert (set(sizes), set(whole)) == ({8}, {64})
    assert much > 2 * little
    limit = (little + (much - little) / 3) / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit)
    try:
        maps, sizes, _ = inverted(32)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert max(sizes[1:]) < 64
    assert_close(maps.predictions, expected.predictions, rtol=0, atol=0.1)  # float16 in batches of another size
