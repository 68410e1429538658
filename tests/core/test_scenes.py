"""Drawn scenes: the caption says what is drawn, and a changed scene differs only where it
should."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from ddpm_core.demo import relief
from ddpm_core.demo.scenes import (
    BACKGROUNDS,
    COLORS,
    FILLS,
    SHAPES,
    SIZE,
    Scene,
    caption,
    coverage,
    random_scenes,
    render,
    scene_with,
)


def test_captions_say_what_is_drawn():
    scene = Scene("star", "striped", "red", "blue")
    assert caption(scene) == "a striped red star on a blue background"
    assert caption(scene, color=False) == "a striped star on a blue background"
    assert (
        caption(replace(scene, color="orange", background="orange"), fill=False)
        == "an orange star on an orange background"
    )
    assert caption(scene, background=False) == "a striped red star"


def test_scenes_repeat_with_their_seed_and_cover_all_kinds():
    scenes = random_scenes(400, seed=5)
    assert scenes == random_scenes(400, seed=5)
    assert {s.shape for s in scenes} == set(SHAPES)
    assert {s.fill for s in scenes} == set(FILLS)
    assert {s.color for s in scenes} == set(COLORS)
    assert {s.background for s in scenes} == set(BACKGROUNDS)
    assert all(s.color != s.background for s in scenes)
    assert all(s.radius < s.x < 1 - s.radius and s.radius < s.y < 1 - s.radius for s in scenes)
    assert min(len(SHAPES), len(COLORS)) >= 8


@pytest.mark.slow
def test_pictures_are_in_range_and_anti_aliased():
    scenes = random_scenes(16, seed=1)
    pictures, cover = render(scenes), coverage(scenes)
    assert pictures.shape == (16, 3, SIZE, SIZE)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    partly = ((cover > 0.02) & (cover < 0.98)).float().mean((1, 2, 3))
    assert (partly > 0.002).all()
    small = torch.nn.functional.avg_pool2d(render(scenes, 4 * SIZE), 4)
    assert (pictures - small).abs().mean() < 0.004


def test_a_window_is_a_part_of_the_whole():
    scenes = random_scenes(3, seed=2)
    whole = render(scenes)
    part = render(scenes, 48, [(24 / SIZE, 60 / SIZE)] * 3, 48 / SIZE)
    assert_close(part, whole[:, :, 60:108, 24:72], rtol=0, atol=2e-3)


@pytest.mark.parametrize("change", [{"color": "green"}, {"fill": "dotted"}])
def test_a_changed_shape_changes_only_inside_the_shape(change):
    scene = scene_with(7, shape="heart", fill="plain", color="red", background="teal")
    difference = (render([scene]) - render([replace(scene, **change)])).abs().amax(1, keepdim=True)
    assert difference[coverage([scene]) == 0].max() == 0
    assert difference[coverage([scene]) == 1].max() > 0.2


def test_a_changed_background_keeps_shape_and_dots():
    scene = scene_with(7, shape="heart", fill="plain", color="red", background="teal")
    difference = (render([scene]) - render([replace(scene, background="pink")])).abs().amax(1, keepdim=True)
    assert difference[coverage([scene]) == 1].max() == 0
    rows, columns = (torch.arange(SIZE) + 0.5).div(SIZE)[:, None], (torch.arange(SIZE) + 0.5).div(SIZE)[None]
    assert scene.dots
    for x, y, r in scene.dots:
        inside = ((columns - x) ** 2 + (rows - y) ** 2).sqrt() < r - 1.5 / SIZE
        assert inside.any()
        assert difference[0, 0][inside].max() < 0.02
    assert difference.mean() > 0.1


def test_every_shape_has_about_the_same_extent():
    areas = coverage([Scene(shape, "plain", "red", "blue", radius=0.3) for shape in SHAPES]).mean((1, 2, 3))
    assert (areas > 0.08).all()
    assert (areas < 0.28).all()


@pytest.mark.parametrize(
    "change", [{"shape": "hexagon"}, {"fill": "wavy"}, {"color": "beige"}, {"background": "white"}]
)
def test_unknown_words_are_refused(change):
    (name, value), given = *change.items(), Scene("star", "plain", "red", "blue")
    with pytest.raises(ValueError, match=f"Scene {name} must be one of .*got '{value}'"):
        replace(given, **change)


def test_flat_paper_has_the_bare_colours():
    """Relief 0: no shade, no highlight and no shadow; the shape's mask is that of the lit piece."""
    scene = scene_with(7, shape="heart", fill="plain", color="red", background="teal", shade=0.0, dots=(), relief=0.0)
    picture, cover = render([scene])[0], coverage([scene])[0, 0]
    assert_close(picture[:, cover == 1], torch.tensor(COLORS["red"])[:, None].expand(3, int((cover == 1).sum())))
    ground = picture[:, cover == 0]
    assert_close(ground, torch.tensor(BACKGROUNDS["teal"])[:, None].expand_as(ground))
    assert torch.equal(coverage([replace(scene, relief=1.0)])[0, 0], cover)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s not in ("ring", "moon")])  # without inner walls
def test_light_comes_from_the_upper_left_whatever_the_angle(shape):
    """The half of a lit piece that looks to the light is brighter, and its shadow falls away from
    it."""
    for angle in (-0.4, 0.4):
        scene = Scene(shape, "plain", "blue", "yellow", radius=0.3, angle=angle, shade=0.0)
        bright = render([scene])[0].mean(0)
        inside, ground = coverage([scene])[0, 0] == 1, coverage([scene])[0, 0] == 0
        y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        towards = -(x - SIZE / 2) - (y - SIZE / 2) > 0
        outer = inside & ~torch.nn.functional.avg_pool2d(inside[None].float(), 9, 1, 4)[0].eq(1)
        assert bright[outer & towards].mean() > bright[outer & ~towards].mean() + 0.04
        assert bright[ground & towards].mean() > bright[ground & ~towards].mean()


@pytest.mark.parametrize("shape", SHAPES)
def test_depth_below_the_walls_is_the_distance_near_one_wall_and_less_between(shape):
    points = torch.rand(4000, 2, generator=torch.Generator().manual_seed(2)) * 2.4 - 1.2
    away = relief.distance(shape, points)
    depth, slope = relief.walls(shape, points)
    inside = away < -0.02
    assert (depth[inside] <= -away[inside] + 0.06).all()
    assert slope.norm(dim=-1).max() <= 1.3
    rim = (away < -0.005) & (away > -0.03)
    steps = torch.stack([relief.distance(shape, points[rim] + d) for d in 1e-3 * torch.eye(2)], -1)
    outwards = (steps - away[rim][:, None]) / 1e-3
    aligned = (torch.nn.functional.cosine_similarity(outwards, slope[rim]) > 0.9).float().mean()
    assert aligned > 0.9


def test_beyond_the_moon_s_tips_the_tip_is_nearest():
    """The cut disc casts no ring of its own: outside, the distance is that to the drawn outline."""
    axis = torch.linspace(-1.5, 1.5, 301)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    away = relief.distance("moon", points)
    outline = points[(away.abs() < 0.006)]
    outside = points[away > 0.1][::37]
    nearest = torch.cdist(outside, outline).amin(1)
    assert_close(relief.distance("moon", outside), nearest, rtol=0, atol=0.02)
