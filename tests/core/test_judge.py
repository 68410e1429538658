"""The judge on pictures whose truth is known, and the two reports on fakes."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from ddpm_core.demo import judge as evaluate
from ddpm_core.demo.judge import ATTRIBUTES, agreement, autoencoder_psnr, generate, judge, latent_deviations
from ddpm_core.demo.scenes import BACKGROUNDS, COLORS, FILLS, SHAPES, Scene, random_scenes, render

SCENES = random_scenes(24, 4711)


def degraded(pictures, sigma=1.5, std=0.05):
    """Gaussian blur of sigma pixels, then noise."""
    line = torch.exp(-torch.arange(-5.0, 6.0).square() / (2 * sigma**2))
    line = (line / line.sum()).expand(3, 1, 1, -1)
    blurred = F.conv2d(F.pad(pictures, (5, 5, 5, 5), mode="replicate"), line, groups=3)
    blurred = F.conv2d(blurred, line.mT, groups=3)
    return (blurred + std * torch.randn(blurred.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


def names(scene):
    return tuple(getattr(scene, name) for name in ATTRIBUTES)


@pytest.fixture(scope="module")
def pictures():
    return render(SCENES)


@pytest.mark.slow
def test_judge_reads_clean_pictures(pictures):
    found = judge(pictures)
    assert min(agreement(SCENES, found).values()) >= 0.98
    for scene, got in zip(SCENES, found):
        assert math.hypot(scene.x - got.x, scene.y - got.y) < 0.01
        assert abs(scene.radius - got.radius) < 0.01
        assert got.dots == ()


@pytest.mark.slow
def test_judge_reads_blurred_and_noisy_pictures(pictures):
    share = agreement(SCENES, judge(degraded(pictures)))
    assert min(share[name] for name in ATTRIBUTES) >= 0.95


@pytest.mark.slow
def test_judge_near_forgives_a_start_that_is_a_little_off(pictures):
    near = [replace(s, x=s.x + 0.02, y=s.y - 0.02, radius=s.radius * 1.06, angle=s.angle + 0.08) for s in SCENES[:6]]
    assert agreement(SCENES[:6], judge(degraded(pictures[:6]), near))["all"] == 1


@pytest.mark.slow
def test_judge_near_sees_the_one_attribute_that_changed():
    source = SCENES[0]
    known = dict(zip(ATTRIBUTES, (SHAPES, FILLS, COLORS, BACKGROUNDS)))
    edits = [
        replace(source, **{name: value})
        for name in ATTRIBUTES
        for value in list(known[name])[::3]
        if value != getattr(source, name)
    ]
    edits = [edit for edit in edits if edit.color != edit.background]
    found = judge(render(edits), [source] * len(edits))
    assert [names(f) for f in found] == [names(e) for e in edits]


@pytest.mark.slow
def test_judge_looks_past_dots_and_a_color_cast():
    scenes = [
        replace(s, dots=((0.06, 0.06, 0.032), (0.5, 0.06, 0.032), (0.94, 0.5, 0.032), (0.3, 0.94, 0.032)))
        for s in SCENES[:3]
    ]
    cast = torch.tensor([0.04, -0.04, 0.03])[:, None, None]
    assert agreement(scenes, judge((render(scenes) + cast).clamp(0, 1)))["all"] == 1


def test_candidates_are_drawn_as_render_draws_them():
    scene = replace(SCENES[1], shade=0.0, dots=())
    size = evaluate._GRID
    picture = render([scene], size)[0].permute(1, 2, 0).flatten(0, 1)
    ground = torch.tensor(BACKGROUNDS[scene.background]).expand_as(picture)
    view = evaluate._View(evaluate._centers(size).flatten(0, 1), picture, ground)
    torch.testing.assert_close(evaluate._residual([scene], view), torch.zeros(1, picture.numel()), atol=1e-5, rtol=0)


def test_judge_answers_for_a_picture_without_a_shape():
    assert judge(torch.tensor(BACKGROUNDS["teal"])[None, :, None, None].expand(1, 3, 192, 192))[0].background == "teal"


@pytest.mark.parametrize(
    ("shape", "near"), [((1, 3, 64, 64), None), ((3, 192, 192), None), ((2, 3, 192, 192), SCENES[:1])]
)
def test_judge_refuses_what_it_cannot_read(shape, near):
    with pytest.raises(ValueError, match="judge needs"):
        judge(torch.zeros(shape), near)


def test_judge_refuses_pictures_that_are_not_finite():
    with pytest.raises(ValueError, match="finite"):
        judge(torch.full((1, 3, 192, 192), torch.nan))


def test_agreement_counts_each_attribute():
    a = Scene("star", "plain", "red", "blue")
    got = agreement([a, a], [replace(a, shape="moon"), replace(a, shape="ring", color="teal")])
    assert got == {"shape": 0, "fill": 1, "color": 0.5, "background": 1, "all": 0}


def test_psnr_of_a_known_error():
    """Errors of 0.1 and 0.01 in [0, 1] are 20 and 40 dB."""

    class Coder:
        def encode(self, x):
            return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: x))

        def decode(self, z):
            return SimpleNamespace(sample=z + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1))

    mean, pooled = autoencoder_psnr(Coder(), torch.full((2, 3, 8, 8), 0.5))
    assert mean == pytest.approx(30, abs=1e-3)
    assert pooled == pytest.approx(-10 * math.log10((0.01 + 0.0001) / 2), abs=1e-3)


def test_a_channel_that_carries_nothing_has_no_deviation():
    """Latents of a fake: the red channel doubled (so that it has twice its deviation in [-1, 1]),
    and a constant."""
    mean = lambda x: torch.cat([2 * x[:, :1], torch.ones_like(x[:, :1])], 1)  # noqa: E731
    coder = SimpleNamespace(encode=lambda x: SimpleNamespace(latent_dist=SimpleNamespace(mean=mean(x))))
    pictures = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert latent_deviations(coder, pictures) == pytest.approx([4 * pictures[:, 0].std().item(), 0])


def flat(scene):
    return replace(scene, relief=0.0, shade=0.0, dots=())


@pytest.mark.slow
def test_judge_reads_flat_paper_and_tells_it_from_lit_pieces(pictures):
    scenes = [flat(scene) for scene in SCENES[:8]]
    found = judge(render(scenes))
    assert agreement(scenes, found)["all"] == 1
    assert all(scene.relief == 0 for scene in found)
    assert all(scene.relief == 1 for scene in judge(pictures[:4]))


def test_generate_seeds_every_batch():
    calls = []

    def pipe(words, *, generator, **options):
        calls.append((len(words), generator.initial_seed(), options))
        return SimpleNamespace(images=torch.rand(len(words), 3, 4, 4, generator=generator))

    made = generate(pipe, ["a"] * 20, guidance=5, steps=7, seed=3)
    assert [(count, seed) for count, seed, _ in calls] == [(16, 3), (4, 4)]
    assert calls[0][2] == {"guidance_scale": 5, "num_inference_steps": 7, "output_type": "pt"}
    assert made.shape == (20, 3, 4, 4)
    torch.testing.assert_close(generate(pipe, ["a"] * 20, guidance=5, steps=7, seed=3), made)
