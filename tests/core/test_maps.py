"""The container and its files: what fits is kept whole, what does not is refused with both
values."""

import dataclasses
import json
import struct
from pathlib import Path

import pytest
import torch
from fakes import ddpm_sigmas, flow_sigmas, network
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from ddpm_core import NoiseMaps, Plan, Process, Solver, flip, invert, mix, replay, scale, shift
from ddpm_core.checks import BadArgument

DATA = Path(__file__).parent / "data"

X0 = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
MAPS = invert(network(), X0, Plan(ddpm_sigmas(6), skip=1, seed=9), mask=torch.rand(2, 1, 6, 8))
TENSORS = ("sigmas", "latents", "residuals", "predictions")


@pytest.mark.parametrize(
    "maps",
    [
        MAPS,
        invert(
            network(process=Process.FLOW),
            X0,
            Plan(flow_sigmas(4), eta=0.25, solver=Solver.DPMPP_2M_SDE, process=Process.FLOW),
        ),
        invert(network(), torch.randn(1, 3, 2, 4, 4).double(), Plan(ddpm_sigmas(3), seed=2**64 - 1)),
    ],
    ids=["masked", "flow", "video"],
)
def test_a_saved_file_comes_back_whole(maps, tmp_path):
    maps.save(tmp_path / "maps.safetensors", metadata={"workflow": "{}"})
    loaded = NoiseMaps.load(tmp_path / "maps.safetensors")
    for field in dataclasses.fields(NoiseMaps):
        a, b = getattr(maps, field.name), getattr(loaded, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def test_a_callers_metadata_does_not_replace_what_the_file_says_of_itself(tmp_path):
    own = {"eta": "0.5", "solver": "x", "process": "x", "seed": "1", "skipped": "0", "format": "x", "version": "2"}
    MAPS.save(tmp_path / "maps.safetensors", metadata={**own, "workflow": "{}"})
    said = header(tmp_path / "maps.safetensors")
    assert said == {
        **{"format": "edit-friendly-noise-maps", "version": "1", "eta": "1.0", "solver": "first_order"},
        **{"process": "ve", "seed": "9", "skipped": "1", "workflow": "{}"},
    }
    assert NoiseMaps.load(tmp_path / "maps.safetensors").eta == MAPS.eta


def test_maps_may_have_as_many_steps_as_files_may():
    assert dataclasses.replace(MAPS, skipped=9_995).total_steps == 10_000


@pytest.mark.parametrize("cast", [torch.Tensor.float, torch.Tensor.tolist, torch.Tensor.double])
def test_sigmas_are_kept_in_double_precision_whatever_they_come_as(cast):
    sigmas = MAPS.sigmas.float().double()
    maps = dataclasses.replace(MAPS, sigmas=cast(sigmas))
    assert maps.sigmas.dtype == torch.float64
    assert torch.equal(maps.sigmas, sigmas)


def test_maps_are_the_same_only_if_they_are_one_object():
    """Tensors have no truth value to compare by."""
    assert MAPS in (None, MAPS)
    assert dataclasses.replace(MAPS) != MAPS


def test_the_longest_schedule_is_saved_and_loaded(tmp_path):
    zeros = torch.zeros(10_001, 1, 1, 1, 1)
    sigmas = torch.linspace(1, 0, 10_001, dtype=torch.float64)
    NoiseMaps(sigmas, zeros, zeros[1:].double(), zeros[1:].clone()).save(tmp_path / "maps.safetensors")
    assert NoiseMaps.load(tmp_path / "maps.safetensors").total_steps == 10_000


def test_the_container_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MAPS.eta = 0.5


def test_z_is_the_residual_in_units_of_the_steps_noise():
    maps = invert(network(), X0, Plan(ddpm_sigmas(6)[:-1]))
    for z, residual, step in zip(maps.z, maps.residuals, maps.steps):
        assert_close(z * step.up, residual)
    with pytest.raises(ValueError, match=r"up is 0 at step 4: use residuals"):
        _ = MAPS.z


def test_times_are_per_cent_of_the_whole_schedule_where_each_step_starts():
    maps = invert(network(), X0, Plan(ddpm_sigmas(8), skip=3))
    assert maps.times == [62.5, 50, 37.5, 25, 12.5]
    assert maps.skip(6).times == [25, 12.5]


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
        (
            {"latents": MAPS.latents[1:]},
            r"latents must have shape \(6, 2, 4, 6, 8\) for 6 sigmas; got \(5, 2, 4, 6, 8\)",
        ),
        ({"residuals": MAPS.residuals[..., 1:]}, "residuals must have shape"),
        (
            {"predictions": MAPS.predictions.half()},
            "predictions must be torch.float32 or torch.float64.*got torch.float16",
        ),
        ({"residuals": MAPS.residuals.float()}, "residuals must be torch.float64.*got torch.float32"),
        ({"predictions": MAPS.predictions.clone().fill_(torch.nan)}, "predictions must be finite; 1920 of 1920"),
        ({"sigmas": MAPS.sigmas.flip(0)}, "decrease strictly"),
        ({"sigmas": MAPS.sigmas[None]}, r"sigmas must have shape \(T\+1,\)"),
        ({"mask": 2 * torch.ones(2, 1, 6, 8)}, "mask must lie in .0, 1.; got values from 2 to 2"),
        ({"mask": torch.ones(3, 1, 6, 8)}, r"mask must have shape .*got \(3, 1, 6, 8\)"),
        (
            {"mask": torch.ones(2, 1, 6, 8, dtype=torch.bool)},
            "mask must be torch.float32 or torch.float64.*got torch.bool",
        ),
        ({"mask": torch.full((2, 1, 6, 8), torch.nan)}, "mask must be finite"),
        ({"eta": -0.1}, "eta must lie in"),
        ({"skipped": -1}, "skipped must be 0 or more; got -1"),
        ({"skipped": 9_996}, "at most 10000 steps, the skipped ones included; got 10001"),
        ({"latents": MAPS.latents[:, 0]}, r"latents must have shape .*got \(6, 4, 6, 8\)"),
        ({"latents": MAPS.latents[..., :0]}, "none of them 0; got"),
        ({"latents": MAPS.latents[:, :0]}, "none of them 0; got"),
        ({"process": Process.FLOW}, "sigmas of a flow process"),
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
    save_file(
        {k: v for k, v in values.items() if v is not None},
        path,
        metadata={k: v for k, v in {**old, **meta}.items() if v is not None},
    )


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


def test_half_takes_three_eighths_and_comes_back_nearly(tmp_path):
    x0 = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    maps = invert(network(), x0, Plan(ddpm_sigmas(20)), mask=torch.rand(1, 1, 32, 32))
    maps.save(tmp_path / "full.safetensors")
    maps.save(tmp_path / "half.safetensors", half=True)
    full, half = (((tmp_path / f"{name}.safetensors").stat().st_size) for name in ("full", "half"))
    assert half / full == pytest.approx(3 / 8, abs=0.02)
    loaded = NoiseMaps.load(tmp_path / "half.safetensors")
    assert torch.equal(loaded.mask, maps.mask)
    error = (replay(network(), loaded, mask=torch.ones(1, 1, 32, 32)) - x0).abs().max().item()
    assert 1e-6 < error < 5e-3


def test_what_float16_cannot_hold_is_not_saved_in_it(tmp_path):
    wide = dataclasses.replace(MAPS, predictions=MAPS.predictions + 1e5)
    with pytest.raises(ValueError, match=r"predictions in float16 \(save them in full precision\) must be finite"):
        wide.save(tmp_path / "maps.safetensors", half=True)
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_file_that_was_there(file, monkeypatch):
    def fails(tensors, path, metadata):
        Path(path).write_bytes(b"the beginning")
        raise OSError("no space left")

    before = file.read_bytes()
    monkeypatch.setattr("safetensors.torch.save_file", fails)
    with pytest.raises(OSError, match="no space left"):
        MAPS.save(file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_loaded_maps_do_not_hang_on_the_file(file):
    loaded = NoiseMaps.load(file)
    kept = loaded.latents.clone()
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(loaded.latents, kept)


@pytest.mark.parametrize("name", ["maps-1.safetensors", "maps-1-half.safetensors"])
def test_files_of_earlier_versions_load_and_edit_as_they_did(name):
    """Written when the format was new, with a mask and a colour push in it; see data/README.md."""
    maps = NoiseMaps.load(DATA / name)
    assert (maps.eta, maps.solver, maps.process, maps.seed, maps.skipped, len(maps.steps)) == (
        0.75,
        Solver.DPMPP_2M_SDE,
        Process.VE,
        2**63 + 5,
        2,
        6,
    )
    recorded = load_file(DATA / "maps-1-edits.safetensors")
    tolerance = {"rtol": 0, "atol": 5e-3 if "half" in name else 1e-6}
    assert_close(replay(network(0.2), maps), recorded["same"], **tolerance)
    assert_close(replay(network(1.0), maps.skip(4)), recorded["other"], **tolerance)


@pytest.mark.parametrize("guidance", [None, 0.0, 3.5, 1 / 3])
def test_maps_remember_the_guidance_of_their_inversion(tmp_path, guidance):
    x0 = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    maps = invert(network(), x0, Plan(ddpm_sigmas(5), guidance=guidance))
    assert maps.guidance == guidance
    for kept in (maps.skip(2), maps.to(torch.float64), flip(maps, "left-right"), shift(maps, 1, 0), scale(maps, 0.5)):
        assert kept.guidance == guidance
    maps.save(tmp_path / "maps.safetensors")
    assert NoiseMaps.load(tmp_path / "maps.safetensors").guidance == guidance
    with safe_open(tmp_path / "maps.safetensors", framework="pt") as file:
        assert ("guidance" in file.metadata()) == (guidance is not None)


@pytest.mark.parametrize("guidance", [-1.0, float("nan"), float("inf")])
def test_a_guidance_that_is_none_is_refused(guidance):
    with pytest.raises(BadArgument, match="guidance must be 0 or more; got") as caught:
        dataclasses.replace(MAPS, guidance=guidance)
    assert caught.value.argument == "guidance"


@pytest.mark.parametrize("model", [None, "SDXL EPS 0123456789ab", ""])
def test_maps_remember_the_model_that_the_host_names(tmp_path, model):
    maps = dataclasses.replace(MAPS, model=model)
    for kept in (maps.skip(maps.skipped + 1), maps.to(torch.float64), flip(maps, "left-right")):
        assert kept.model == model
    maps.save(tmp_path / "maps.safetensors", {"workflow": "{}"})
    assert NoiseMaps.load(tmp_path / "maps.safetensors").model == model
    with safe_open(tmp_path / "maps.safetensors", framework="pt") as file:
        assert file.metadata().get("model") == model


def test_mixed_maps_have_the_model_of_both_or_none():
    one, other = (dataclasses.replace(MAPS, model=model) for model in ("one", "other"))
    assert mix(one, one, 0.5).model == "one"
    assert mix(one, other, 0.5).model is None


@pytest.mark.parametrize("model", ["x" * 201, "two\nlines"])
def test_a_model_of_many_words_is_refused(model):
    with pytest.raises(BadArgument, match="model must be a line of at most 200 letters; got") as caught:
        dataclasses.replace(MAPS, model=model)
    assert caught.value.argument == "model"
