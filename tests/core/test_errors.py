"""Each error of the core carries the name of the argument that does not fit: hosts translate it."""

import inspect
from pathlib import Path

import pytest
import torch
from fakes import ddpm_sigmas, network

from ddpm_core import (
    NoiseMaps,
    Plan,
    flip,
    invert,
    mix,
    parse_color,
    push_color,
    replay,
    scale,
    schedule,
    shift,
)
from ddpm_core.checks import BadArgument, NotFinite, check_finite, check_mask
from ddpm_core.denoise import call
from ddpm_core.inversions.choice import invert_by
from ddpm_core.inversions.ddim import invert_ddim
from ddpm_core.inversions.sdedit import sdedit
from ddpm_core.measure.metrics import psnr, ssim
from ddpm_core.measure.plots import statistics_figure
from ddpm_core.measure.stats import statistics
from ddpm_core.models.stable_diffusion import Pipeline

X0 = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
NAN = torch.full_like(X0, torch.nan)
PLAN = Plan(ddpm_sigmas(6))
MAPS = invert(network(), X0, PLAN)
PICTURES = torch.rand(1, 3, 16, 16)
MASK = torch.ones(1, 1, 6, 8)


def same(**changes):
    """The fields of good maps, some of them changed."""
    names = ("sigmas", "latents", "residuals", "predictions")
    return {**{name: getattr(MAPS, name) for name in names}, **changes}


CASES = [
    (check_finite, {"tensor": NAN, "argument": "x0"}, "x0"),
    (check_mask, {"mask": MASK[0], "shape": (1, 4, 6, 8)}, "mask"),
    (schedule, {"sigmas": [1.0]}, "sigmas"),
    (schedule, {"sigmas": [2.0, 1.0], "eta": 2}, "eta"),
    (Plan, {"sigmas": [1.0, 2.0]}, "sigmas"),
    (Plan, {"sigmas": [2.0, 1.0], "eta": -1}, "eta"),
    (Plan, {"sigmas": [2.0, 1.0], "skip": 1}, "skip"),
    (Plan, {"sigmas": [2.0, 1.0], "seed": 1.0}, "seed"),
    (Plan, {"sigmas": [2.0, 1.0], "seed": -1}, "seed"),
    (Plan, {"sigmas": [2.0, 1.0], "seed": 2**64}, "seed"),
    (schedule, {"sigmas": [1e154, 1.0]}, "sigmas"),
    (schedule, {"sigmas": [1.0, 1e-200]}, "sigmas"),
    (call, {"denoise": lambda x, sigma: x[:, :1], "x": X0, "sigma": torch.ones(1), "device": "cpu"}, "denoise"),
    (call, {"denoise": lambda x, sigma: NAN, "x": X0, "sigma": torch.ones(1), "device": "cpu"}, "denoise"),
    (invert, {"denoise": network(), "x0": X0[0], "plan": PLAN}, "x0"),
    (invert, {"denoise": network(), "x0": NAN, "plan": PLAN}, "x0"),
    (invert, {"denoise": network(), "x0": X0[:0], "plan": PLAN}, "x0"),
    (invert_ddim, {"denoise": network(), "x0": X0[:0], "plan": PLAN}, "x0"),
    (sdedit, {"x0": X0[:0], "plan": PLAN}, "x0"),
    (sdedit, {"x0": NAN, "plan": PLAN}, "x0"),
    (invert, {"denoise": network(), "x0": X0, "plan": PLAN, "chunk": 0}, "chunk"),
    (invert, {"denoise": network(), "x0": X0, "plan": PLAN, "path": MAPS.latents[1:]}, "path"),
    (invert, {"denoise": network(), "x0": X0, "plan": PLAN, "path": 0 * MAPS.latents}, "path"),
    (invert, {"denoise": network(), "x0": X0, "plan": PLAN, "mask": MASK[..., 1:]}, "mask"),
    (invert, {"denoise": lambda x, sigma: x * torch.nan, "x0": X0, "plan": PLAN}, "denoise"),
    (invert_ddim, {"denoise": network(), "x0": NAN, "plan": PLAN}, "x0"),
    (invert_by, {"method": "pnp", "denoise": network(), "x0": X0, "plan": PLAN}, "method"),
    (replay, {"denoise": network(), "maps": MAPS, "skip": 6}, "skip"),
    (replay, {"denoise": lambda x, sigma: x * torch.nan, "maps": MAPS}, "denoise"),
    (NoiseMaps, same(sigmas=MAPS.sigmas[None]), "sigmas"),
    (NoiseMaps, same(sigmas=MAPS.sigmas.flip(0)), "sigmas"),
    (NoiseMaps, same(eta=2), "eta"),
    (NoiseMaps, same(latents=MAPS.latents[0]), "latents"),
    (NoiseMaps, same(latents=MAPS.latents.half()), "latents"),
    (NoiseMaps, same(residuals=MAPS.residuals[1:]), "residuals"),
    (NoiseMaps, same(residuals=MAPS.residuals.float()), "residuals"),
    (NoiseMaps, same(predictions=MAPS.predictions * torch.inf), "predictions"),
    (NoiseMaps, same(mask=2 * MASK), "mask"),
    (NoiseMaps, same(pull=-MASK.expand(6, 1, 1, 6, 8)), "pull"),
    (NoiseMaps, same(skipped=-1), "skipped"),
    (NoiseMaps, same(skipped=10_000), "skipped"),
    (NoiseMaps, same(seed=-1), "seed"),
    (NoiseMaps, same(seed=2**64), "seed"),
    (NoiseMaps, same(seed=1.0), "seed"),
    (NoiseMaps, same(sigmas=MAPS.sigmas * 1e154), "sigmas"),
    (shift, {"maps": MAPS, "dx": 1, "dy": 0, "seed": 1.0}, "seed"),
    (scale, {"maps": MAPS, "share": 0.5, "seed": -1}, "seed"),
    (NoiseMaps.skip, {"self": MAPS, "n": 6}, "skip"),
    (NoiseMaps.load, {"path": Path(__file__)}, "path"),
    (shift, {"maps": MAPS, "dx": 8, "dy": 0}, "dx"),
    (shift, {"maps": MAPS, "dx": 0, "dy": -6}, "dy"),
    (shift, {"maps": MAPS, "dx": 0, "dy": 1, "fill": "mirror"}, "fill"),
    (flip, {"maps": MAPS, "direction": "inside out"}, "direction"),
    (scale, {"maps": MAPS, "share": 1.5}, "share"),
    (scale, {"maps": MAPS, "share": 0.5, "start": 10, "end": 10}, "start"),
    (scale, {"maps": MAPS, "share": 0.5, "start": 40, "end": 35}, "start"),
    (scale, {"maps": MAPS, "share": 0.5, "start": 40, "end": -1}, "end"),
    (mix, {"maps": MAPS, "other": MAPS, "amount": -1}, "amount"),
    (mix, {"maps": MAPS, "other": MAPS, "amount": 0.5, "start": 101}, "start"),
    (mix, {"maps": MAPS, "other": MAPS, "amount": 0.5, "mask": MASK[0]}, "mask"),
    (mix, {"maps": MAPS, "other": invert(network(), X0, Plan(ddpm_sigmas(7))), "amount": 1}, "other"),
    (mix, {"maps": MAPS, "other": invert(network(), X0[..., 1:], PLAN), "amount": 1}, "other"),
    (mix, {"maps": MAPS, "other": invert(network(), X0, Plan(2 * ddpm_sigmas(6))), "amount": 1}, "other"),
    (push_color, {"maps": MAPS, "target": X0[..., 1:], "mask": MASK}, "target"),
    (push_color, {"maps": MAPS, "target": X0, "mask": MASK[..., 1:]}, "mask"),
    (push_color, {"maps": MAPS, "target": X0, "mask": 0 * MASK}, "mask"),
    (push_color, {"maps": MAPS, "target": X0, "mask": MASK, "start": 20, "end": 70}, "start"),
    (push_color, {"maps": MAPS, "target": X0, "mask": MASK, "start": 17, "end": 16}, "start"),
    (push_color, {"maps": invert(network(), X0, Plan(ddpm_sigmas(6), eta=0)), "target": X0, "mask": MASK}, "maps"),
    (parse_color, {"text": "reddish"}, "text"),
    (psnr, {"pictures": PICTURES, "others": PICTURES[..., 1:]}, "others"),
    (psnr, {"pictures": PICTURES, "others": PICTURES, "mask": PICTURES}, "mask"),
    (ssim, {"pictures": PICTURES, "others": PICTURES[0]}, "others"),
    (statistics, {"maps": MAPS.skip(5)}, "maps"),
    (statistics_figure, {"named": {}}, "named"),
    (Pipeline, {"pipe": "model"}, "pipe"),
    (Pipeline.load, {"path": Path(__file__)}, "path"),
]


@pytest.mark.parametrize(
    ("function", "arguments", "argument"),
    CASES,
    ids=[f"{i}-{function.__qualname__}-{argument}" for i, (function, _, argument) in enumerate(CASES)],
)
def test_the_error_has_the_name_of_the_argument_that_does_not_fit(function, arguments, argument):
    with pytest.raises(BadArgument) as caught:
        function(**arguments)
    assert caught.value.argument == argument


@pytest.mark.parametrize("denoise", [lambda x, sigma: x * torch.nan, lambda x, sigma: x / 0], ids=["NaN", "infinite"])
def test_values_that_are_not_finite_are_told_from_other_errors(denoise):
    with pytest.raises(NotFinite):
        replay(denoise, MAPS)
    with pytest.raises(BadArgument) as caught:
        replay(lambda x, sigma: x[..., 1:], MAPS)
    assert not isinstance(caught.value, NotFinite)


def test_the_count_and_the_name_of_values_that_are_not_finite_are_said():
    tensor = torch.ones(2, 3)
    tensor[0, 1], tensor[1, 2] = torch.inf, torch.nan
    with pytest.raises(NotFinite, match=r"^the decoded picture must be finite; 2 of 6 values are NaN or infinite\.$"):
        check_finite(tensor, "latents", "the decoded picture")
    with pytest.raises(NotFinite, match=r"^latents must be finite"):
        check_finite(tensor, "latents")
    check_finite(torch.ones(2, 3), "latents")
    check_finite(torch.full((2, 3), 3e38), "latents")  # a sum that overflows is no value that did
    check_finite(torch.full((2, 3), 6e4, dtype=torch.float16), "latents")
    with pytest.raises(NotFinite, match="2 of 2 values"):
        check_finite(torch.tensor([torch.inf, -torch.inf]), "latents")


def test_the_names_are_parameters_of_the_functions_that_were_called():
    """A host that finds no socket for a name could say nothing of use."""
    outside = {check_finite, call, NoiseMaps.skip}  # they speak of their caller's argument
    for function, _, argument in CASES:
        if function not in outside:
            assert argument in inspect.signature(function).parameters
