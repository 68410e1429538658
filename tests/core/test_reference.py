"""Against numbers recorded from the authors' own implementation, in float64.

The file holds, for T = 20 and 100 steps (its keys begin with S20 and S100): x0, timesteps,
alphas_cumprod; xts (T+1, 4, 16, 16), the path in VP coordinates, clean first; zs (T, 4, 16, 16),
zs[i] leads from xts[i+1] to xts[i] (zs[0] was set to 0 there); edits from several skips; and the
denoiser's weights.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.testing import assert_close

from ddpm_core import NoiseMaps, Plan, invert, replay

DATA = load_file(Path(__file__).parent / "data" / "official_edit_friendly.safetensors")


class Recorded:
    """The recorded run of T steps in VE coordinates."""

    def __init__(self, steps: int):
        self.at = {key.split(".", 1)[1]: value for key, value in DATA.items() if key.startswith(f"S{steps}.")}
        self.timesteps = self.at["timesteps"]
        abar = self.at["alphas_cumprod"].double()
        levels = torch.cat((abar[self.timesteps], abar[:1]))  # a step past the end has alphas_cumprod[0]
        self.sigmas = ((1 - levels) / levels).sqrt()
        self.scale = levels.sqrt()  # VP = scale VE
        self.path = self.at["xts"].double().flip(0)[:, None] / self.scale.view(-1, 1, 1, 1, 1)

    def denoiser(self, prompt: str, guidance: float):
        def eps(x, t, text):
            bias = DATA["conv1.bias"] + DATA[f"text.{text}"] + torch.cos(torch.pi * t / 1000)[:, None]
            hidden = F.conv2d(x, DATA["conv1.weight"], padding=1) + bias.view(*bias.shape, 1, 1)
            return 0.8 * x + F.conv2d(torch.tanh(hidden), DATA["conv2.weight"], DATA["conv2.bias"], padding=1)

        def denoise(x, sigma):
            rows = (sigma[:, None] - self.sigmas[:-1]).abs().argmin(1)
            t, s = self.timesteps[rows].double(), sigma.view(-1, 1, 1, 1)
            x_vp = x / (1 + s**2).sqrt()
            without = eps(x_vp, t, "uncond")
            return x - s * (without + guidance * (eps(x_vp, t, prompt) - without))

        return denoise

    def maps(self) -> NoiseMaps:
        return invert(self.denoiser("source", 3.5), self.path[-1], Plan(self.sigmas), path=self.path)


@pytest.fixture(scope="module", params=[20, 100])
def recorded(request):
    return Recorded(request.param)


def test_the_maps_are_the_recorded_ones(recorded):
    zs = recorded.at["zs"].double().flip(0)[:, None]
    assert_close(recorded.maps().z[:-1], zs[:-1], rtol=1e-9, atol=1e-9)


def test_with_the_last_residual_dropped_the_edits_are_the_recorded_ones(recorded):
    import dataclasses

    maps = recorded.maps()
    residuals = maps.residuals.clone()
    residuals[-1] = 0
    maps = dataclasses.replace(maps, residuals=residuals)
    edits = {key: value for key, value in recorded.at.items() if key.startswith("edit_skip")}
    assert len(edits) >= 2
    for name, expected in edits.items():
        skip, guidance = name.removeprefix("edit_skip").split("_cfg")
        edited = replay(recorded.denoiser("target", float(guidance)), maps, skip=int(skip))
        expected = expected.double()
        assert_close(edited * recorded.scale[-1], expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_with_the_last_residual_the_source_comes_back_where_the_recorded_code_misses_it(recorded):
    x0 = recorded.at["x0"].double()
    back = replay(recorded.denoiser("source", 3.5), recorded.maps()) * recorded.scale[-1]
    assert_close(back, x0, rtol=0, atol=1e-10 * x0.abs().max().item())
    assert (recorded.at["reconstruction"].double() - x0).abs().max() > 0.1
