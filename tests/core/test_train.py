"""The training's own parts, on small things: what it draws, keeps and goes on with."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from ddpm_core.demo import train
from ddpm_core.demo.model import build_pipeline
from ddpm_core.demo.scenes import SIZE, random_scene, render


def test_a_share_of_the_scenes_is_flat_on_an_even_ground():
    generator = torch.Generator().manual_seed(3)
    scenes = [train.training_scene(generator) for _ in range(400)]
    flat = [s for s in scenes if s.relief == 0]
    assert abs(len(flat) / 400 - train.FLAT) < 0.07
    assert all(s.shade == 0 and s.dots == () for s in flat)
    assert all(s.relief == 1 for s in scenes if s not in flat)


def test_only_flat_scenes_get_other_tones():
    scene = random_scene(torch.Generator().manual_seed(1))
    flat = replace(scene, relief=0.0, shade=0.0, dots=())
    drawn = render([scene, flat], 32)
    varied = train.vary_colors(drawn, [scene, flat], torch.Generator().manual_seed(2))
    assert torch.equal(varied[0], drawn[0])
    assert (varied[1] - drawn[1]).abs().max() > 0.02
    assert varied.min() >= 0
    assert varied.max() <= 1


def test_cut_outs_are_parts_of_pictures_and_mostly_show_an_outline():
    crops = train.crop_batch(24, 64, torch.Generator().manual_seed(5))
    assert crops.shape == (24, 3, 64, 64)
    edges = (crops[..., 1:] - crops[..., :-1]).abs().amax((1, 2, 3)) > 0.15
    assert edges.float().mean() > 0.7
    assert train.crop_batch(2, SIZE, torch.Generator().manual_seed(5)).shape[-1] == SIZE


class Matrix(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.zeros(16, 4, 3, 3))
        self.bias = torch.nn.Parameter(torch.zeros(16))
        self.table = torch.nn.Embedding(32, 16)


@pytest.fixture
def ticking(monkeypatch):
    """A clock that goes on by 10 ms whenever somebody looks."""
    clock = itertools.count()
    monkeypatch.setattr(train.time, "monotonic", lambda: next(clock) / 100)


def test_a_stage_learns_saves_and_ends_on_its_average(ticking):
    torch.manual_seed(0)
    model, goal, saved = Matrix(), torch.randn(16, 4, 3, 3), []
    stage = train.Stage(model, 0.2, 3e-2, 0.9, lambda m: saved.append(m.kernel.clone()))
    assert [p is model.kernel for _, p in stage.matrices] == [True]  # AdamW has the bias and the table
    first = (model.kernel - goal).square().mean().item()
    for progress in stage:
        assert 0 <= progress < 1
        error = (model.kernel - goal).square().mean() + (model.bias - 1).square().mean()
        error = error + model.table.weight.square().mean()
        stage.learn(error, error.item())
    assert stage.step > 20
    assert (model.kernel - goal).square().mean() < 0.7 * first
    assert (model.bias > 0).all()
    assert_close(saved[-1], stage.average.kernel)
    assert_close(saved[-1], model.kernel)


def test_frozen_parameters_stay(ticking):
    model = Matrix()
    before = model.table.weight.clone()
    model.table.requires_grad_(False)
    stage = train.Stage(model, 0.05, 1e-1, 0.9, lambda m: None)
    for _ in stage:
        stage.learn((model.bias - 1).square().mean() + (model.kernel - 1).square().mean(), 0.0)
    assert torch.equal(model.table.weight, before)
    assert model.bias.abs().min() > 0


def test_encoded_scenes_are_those_of_their_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "ENCODED", 3)
    monkeypatch.setattr(train, "render", lambda scenes: torch.tensor([s.x for s in scenes]).view(-1, 1, 1, 1))
    monkeypatch.setattr(train, "encode", lambda vae, pictures: pictures.expand(-1, 4, 2, 2))  # not contiguous
    vae = type("V", (), {"config": type("C", (), {"scaling_factor": 2.0})})
    monkeypatch.setattr(train, "vary_colors", lambda pictures, scenes, generator: pictures)
    ticks = iter([0.0, 0.0, 0.0, 99.0])
    monkeypatch.setattr(train.time, "monotonic", lambda: next(ticks))
    train.encode_scenes(vae, tmp_path, 1.0, seed=7)
    encoded = train.Encoded(tmp_path)
    encoded.refresh()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["7.safetensors", "8.safetensors"]
    assert len(encoded.scenes) == 6
    assert_close(encoded.latents[:, 3, 1, 1], 2 * torch.tensor([s.x for s in encoded.scenes]))
    save_file({"latents": torch.zeros(3, 4, 2, 2)}, tmp_path / "11.safetensors")
    encoded.refresh()
    assert len(encoded.scenes) == len(encoded.latents) == 9


def test_what_lies_in_the_folder_is_the_start(tmp_path, capsys):
    """Of a pipeline whose UNet has one layer more than the stored one, the rest is loaded."""
    torch.manual_seed(1)
    pipe = build_pipeline(tmp_path)
    pipe.vae.register_to_config(scaling_factor=0.3)
    pipe.save_pretrained(tmp_path)
    train.name_as_published(tmp_path / "text_encoder" / "model.safetensors")
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    stored = train.load_file(path)
    missing = stored.pop("conv_out.bias")
    save_file(stored, path)
    torch.manual_seed(2)
    other = build_pipeline(tmp_path)
    train.load_parts(other, tmp_path)
    assert other.vae.config.scaling_factor == 0.3
    for part in ("vae", "text_encoder"):
        for a, b in zip(getattr(pipe, part).parameters(), getattr(other, part).parameters()):
            assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(other.unet.conv_out.bias, missing)
    assert_close(other.unet.conv_in.weight, pipe.unet.conv_in.weight, rtol=0, atol=0)
    assert "unet: 1 tensors are new, 0 unknown" in capsys.readouterr().out


def test_measured_scale_gives_latents_of_unit_deviation(tmp_path, monkeypatch):
    pipe = build_pipeline(tmp_path)
    monkeypatch.setattr(train, "random_scenes", lambda count, seed: random_scene_list(4))
    train.measure_latents(pipe.vae, tmp_path)
    latents = train.encode(pipe.vae, render(random_scene_list(4)))
    assert (latents * pipe.vae.config.scaling_factor).std().item() == pytest.approx(1, abs=1e-2)
    factors = json.loads((tmp_path / "preview.json").read_text())
    assert len(factors["latent_rgb_factors"]) == 4


def random_scene_list(count):
    generator = torch.Generator().manual_seed(0)
    return [random_scene(generator) for _ in range(count)]
