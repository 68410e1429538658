"""The container and its files: what fits is kept whole, what does not is refused with both values."""

import dataclasses
import json
import struct

import pytest
import torch
from fakes import ddpm_sigmas, flow_sigmas, network
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from ddpm_core import NoiseMaps, Process, Solver, invert

X0 = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
MAPS = invert(network(), X0, ddpm_sigmas(6), skip=1, seed=9, mask=torch.rand(2, 1, 6, 8))
TENSORS = ("sigmas", "latents", "residuals", "predictions")


@pytest.mark.parametrize(
    "maps",
    [
        MAPS,
        invert(network(process=Process.FLOW), X0, flow_sigmas(4), eta=0.25, solver=Solver.DPMPP_2M_SDE, process=Process.FLOW),
        invert(network(), torch.randn(1, 3, 2, 4, 4).double(), ddpm_sigmas(3), seed=2**64 - 1),
    ],
    ids=["masked", "flow", "video"],
)
def test_a_saved_file_comes_back_whole(maps, tmp_path):
    maps.save(tmp_path / "maps.safetensors", metadata={"workflow": "{}"})
    loaded = NoiseMaps.load(tmp_path / "maps.safetensors")
    for field in dataclasses.fields(NoiseMaps):
        a, b = getattr(maps, field.name), getattr(loaded, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def test_the_container_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MAPS.eta = 0.5


def test_z_is_the_residual_in_units_of_the_steps_noise():
    maps = invert(network(), X0, ddpm_sigmas(6)[:-1])
    for z, residual, step in zip(maps.z, maps.residuals, maps.steps):
        assert_close(z * step.up, residual)
    with pytest.raises(ValueError, match=r"up is 0 at step 4: use residuals"):
        _ = MAPS.z


def test_skip_counts_on_the_whole_schedule():
    later = MAPS.skip(3)
    assert (later.skipped, later.total_steps, len(later.residuals)) == (3, 6, 3)
    assert torch.equal(later.latents, MAPS.latents[2:])
    assert MAPS.skip(1) is MAPS
    for n in (0, 6):
        with pytest.raises(ValueError, match=rf"skip must lie in \[1, 5\].*got {n}"):
            MAPS.skip(n)


def test_to_changes_the_dtype_of_the_values_and_keeps_the_levels():
    wide = MAPS.to(torch.float64)
    assert wide.latents.dtype == wide.predictions.dtype == wide.mask.dtype == torch.float64
    assert torch.equal(wide.sigmas, MAPS.sigmas)
    assert torch.equal(wide.to("cpu", torch.float32).residuals, MAPS.residuals)
    with pytest.raises(ValueError, match=r"latents must be torch.float32 or torch.float64.*float16"):
        MAPS.to(torch.float16)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latents": MAPS.latents[1:]}, r"latents must have shape \(6, 2, 4, 6, 8\) for 6 sigmas; got \(5, 2, 4, 6, 8\)"),
        ({"residuals": MAPS.residuals[..., 1:]}, "residuals must have shape"),
        ({"predictions": MAPS.predictions.half()}, "predictions must be torch.float32 or torch.float64.*got torch.float16"),
        ({"residuals": MAPS.residuals.float()}, "residuals must be torch.float64.*got torch.float32"),
        ({"predictions": MAPS.predictions.clone().fill_(torch.nan)}, "predictions must be finite; 1920 of 1920"),
        ({"sigmas": MAPS.sigmas.flip(0)}, "decrease strictly"),
        ({"sigmas": MAPS.sigmas[None]}, r"sigmas must have shape \(S\+1,\)"),
        ({"mask": 2 * torch.ones(2, 1, 6, 8)}, "mask must lie in .0, 1.; got values from 2 to 2"),
        ({"mask": torch.ones(3, 1, 6, 8)}, r"got torch.float32 \(3, 1, 6, 8\)"),
        ({"mask": torch.ones(2, 1, 6, 8, dtype=torch.bool)}, "mask must be float32 or float64.*got torch.bool"),
        ({"mask": torch.full((2, 1, 6, 8), torch.nan)}, "mask must be finite"),
        ({"eta": -0.1}, "eta must lie in"),
        ({"skipped": -1}, "skipped must be 0 or more; got -1"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_values(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(MAPS, **change)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "maps.safetensors"
    MAPS.save(path)
    return path


def header(path) -> dict[str, str]:
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"]


def rewrite(path, tensors=None, **meta):
    """The file again with some tensors or header entries changed; None removes."""
    old = header(path)
    values = {**load_file(path), **(tensors or {})}
    save_file({k: v for k, v in values.items() if v is not None}, path, metadata={k: v for k, v in {**old, **meta}.items() if v is not None})


@pytest.mark.parametrize("kept", [0, 4, 100, 2000])
def test_a_truncated_file_is_refused(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        NoiseMaps.load(file)


def test_a_foreign_file_is_refused(file, tmp_path):
    file.write_bytes(b"\x89PNG" + bytes(1000))
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        NoiseMaps.load(file)
    save_file({"weight": torch.ones(3)}, file)
    with pytest.raises(ValueError, match="format 'edit-friendly-noise-maps'.*says None"):
        NoiseMaps.load(file)
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        NoiseMaps.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        NoiseMaps.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("tensors", "meta", "words"),
    [
        ({}, {"version": "2"}, "format version '1'; it has '2'"),
        ({}, {"eta": None}, "'eta' is missing"),
        ({}, {"eta": "much"}, "does not hold valid noise maps.*much"),
        ({}, {"solver": "heun"}, "heun"),
        ({"residuals": None}, {}, "must hold the tensors"),
        ({"extra": torch.ones(1)}, {}, "extra"),
        ({"residuals": torch.full_like(MAPS.residuals, torch.nan)}, {}, "residuals must be finite"),
        ({"latents": MAPS.latents[..., 1:].contiguous()}, {}, "residuals must have shape"),
        ({"latents": MAPS.latents.bfloat16()}, {}, "must hold latents as F16 or F32 or F64; it holds BF16"),
        ({"residuals": MAPS.residuals.float()}, {}, "must hold residuals as F16 or F64; it holds F32"),
        ({"sigmas": torch.linspace(1, 0, 10_002, dtype=torch.float64)}, {}, r"at most 10000 steps; got \(10002,\)"),
        ({"sigmas": MAPS.sigmas.flip(0)}, {}, "decrease strictly"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_what_was_found(file, tensors, meta, words):
    rewrite(file, tensors, **meta)
    with pytest.raises(ValueError, match=words) as caught:
        NoiseMaps.load(file)
    assert str(file) in str(caught.value)
