"""Drawn scenes with a known truth: one thick, lit shape on a shaded ground with a few pebbles.

A scene's caption names its shape, fill, colour and background. What the caption does not say
(position, size, rotation, the shading of the background, the dots) is what an edit must keep. As
every scene is a set of numbers, the true result of an edit is the same scene with one number
changed: ``dataclasses.replace(scene, color="green")``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from . import relief

SIZE = 192  # pixels a side of the demo model's pictures

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "moon")
FILLS = ("plain", "striped", "dotted", "checkered")
COLORS = {
    "red": (0.86, 0.12, 0.14),
    "orange": (0.98, 0.52, 0.06),
    "yellow": (0.97, 0.85, 0.10),
    "green": (0.13, 0.62, 0.22),
    "teal": (0.05, 0.66, 0.70),
    "blue": (0.13, 0.28, 0.84),
    "purple": (0.50, 0.17, 0.70),
    "pink": (0.96, 0.45, 0.70),
}
BACKGROUNDS = {name: tuple(0.62 * v + 0.38 for v in rgb) for name, rgb in COLORS.items()}
PEBBLE = 0.46  # the grey of the pebbles
MAX_DOTS = 5
TINT = 0.6  # how far the second colour of a fill goes towards white
SHADOW = 0.42  # how dark shadows are
SHADOW_AWAY = (0.020, 0.027)  # how far the shape's shadow falls


@dataclass(frozen=True)
class Scene:
    """One scene. Lengths are in units of the picture's side, angles in radians, y points down."""

    shape: str
    fill: str
    color: str
    background: str
    x: float = 0.5
    y: float = 0.5
    radius: float = 0.25
    angle: float = 0.0
    shade_angle: float = 0.0
    shade: float = 0.1
    dots: tuple[tuple[float, float, float], ...] = ()  # (x, y, radius) each
    relief: float = 1.0  # 1 is a thick piece under the light, 0 flat paper

    def __post_init__(self):
        for value, known, what in (
            (self.shape, SHAPES, "shape"),
            (self.fill, FILLS, "fill"),
            (self.color, COLORS, "color"),
            (self.background, BACKGROUNDS, "background"),
        ):
            if value not in known:
                raise ValueError(f"Scene {what} must be one of {', '.join(known)}; got {value!r}.")
        if len(self.dots) > MAX_DOTS:
            raise ValueError(f"A Scene has at most {MAX_DOTS} dots; got {len(self.dots)}.")


def caption(scene: Scene, fill: bool = True, color: bool = True, background: bool = True) -> str:
    """What the scene shows, in words; each attribute can be left unsaid."""
    words = [scene.fill] * fill + [scene.color] * color + [scene.shape]
    article = "an" if words[0][0] in "aeiou" else "a"
    where = f" on {'an' if scene.background[0] in 'aeiou' else 'a'} {scene.background} background" if background else ""
    return f"{article} {' '.join(words)}{where}"


def random_scene(generator: torch.Generator) -> Scene:
    """A scene with every number drawn from ``generator``; shape and background never have the same
    colour name.

    The order of the draws stays as it is, also that of the keyword arguments at the end: the layout
    number in every saved workflow stands for what it draws.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()

    def choice(values) -> str:
        return list(values)[int(torch.randint(len(values), (), generator=generator))]

    radius = uniform(0.21, 0.32)
    x, y = uniform(radius + 0.04, 0.96 - radius), uniform(radius + 0.04, 0.96 - radius)
    color = choice(COLORS)
    dots = []
    for _ in range(2 + int(torch.randint(MAX_DOTS - 1, (), generator=generator))):
        for _ in range(20):  # a dot that never finds a free place is left out
            dot = (uniform(0.05, 0.95), uniform(0.05, 0.95), uniform(0.020, 0.032))
            apart = all(math.hypot(dot[0] - d[0], dot[1] - d[1]) > 0.12 for d in dots)
            if apart and math.hypot(dot[0] - x, dot[1] - y) > radius * 1.15 + 0.05:
                dots.append(dot)
                break
    return Scene(
        shape=choice(SHAPES),
        fill=choice(FILLS),
        color=color,
        background=choice([name for name in BACKGROUNDS if name != color]),
        x=x,
        y=y,
        radius=radius,
        angle=uniform(-0.45, 0.45),
        shade_angle=uniform(0, 2 * math.pi),
        shade=uniform(0.04, 0.22),
        dots=tuple(dots),
    )


def random_scenes(count: int, seed: int) -> list[Scene]:
    """``count`` scenes from one seed."""
    generator = torch.Generator().manual_seed(seed)
    return [random_scene(generator) for _ in range(count)]


def scene_with(seed: int, **changes) -> Scene:
    """The random scene of a seed with some of its numbers replaced."""
    generator = torch.Generator().manual_seed(seed)
    return replace(random_scene(generator), **changes)


def _fill_amount(fill: str, p: Tensor, soft: Tensor) -> Tensor:
    """Share of the second colour at points of the shape's frame. p: (n, ..., 2), soft: (n, ...)
    half a pixel."""
    if fill == "plain":
        return torch.zeros(p.shape[:-1])
    if fill == "striped":
        wave = torch.sin(p[..., 1] * (2 * math.pi / 0.62)) * (0.62 / (2 * math.pi))
        return (0.5 + wave / (2 * soft)).clamp(0, 1)
    cell = 0.60 if fill == "dotted" else 0.76
    q = p / cell
    if fill == "dotted":
        away = (q - q.round()).norm(dim=-1) * cell - 0.19
        return (0.5 - away / (2 * soft)).clamp(0, 1)
    saw = ((q - q.floor()) - 0.5).abs() * 2 - 0.5  # triangle wave in [-0.5, 0.5], zero at the edges of the checks
    side = (saw * cell / (2 * soft[..., None])).clamp(-0.5, 0.5)
    return 0.5 + 2 * side[..., 0] * side[..., 1]


def coverage(scenes: Sequence[Scene]) -> Tensor:
    """How much of each pixel the shape covers. Returns (B, 1, SIZE, SIZE) in [0, 1]."""
    return layers(scenes, *_grid(scenes, SIZE, None, 1.0)).cover[:, None]


def _grid(scenes, size, window, span):
    centers = (torch.arange(size) + 0.5) / size * span
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    origin = torch.zeros(len(scenes), 2) if window is None else torch.tensor(window, dtype=torch.float32)
    return torch.stack((x, y), dim=-1) + origin[:, None, None, :], span / size


@dataclass(frozen=True)
class Layers:
    """What a picture is made of, each (B, H, W) in [0, 1]."""

    cover: Tensor  # how much of the pixel the shape covers
    second: Tensor  # share of the second colour of the fill
    shade: Tensor  # what the shape's colour is multiplied with
    gloss: Tensor  # the highlight on it
    shadow: Tensor  # how dark the ground is under the shape's shadow


def layers(scenes: Sequence[Scene], points: Tensor, pixel: float) -> Layers:
    """The layers of scenes at points (B, H, W, 2) of a grid of ``pixel`` spacing."""
    radius = torch.tensor([s.radius for s in scenes])[:, None, None]
    angle = torch.tensor([s.angle for s in scenes])[:, None, None]
    center = torch.tensor([(s.x, s.y) for s in scenes])[:, None, None, :]
    high = torch.tensor([s.relief for s in scenes])[:, None, None]

    def frame(points):
        q = (points - center) / radius[..., None]
        cos, sin = torch.cos(angle), torch.sin(angle)
        return torch.stack((cos * q[..., 0] + sin * q[..., 1], cos * q[..., 1] - sin * q[..., 0]), dim=-1)

    own, shifted = frame(points), frame(points - torch.tensor(SHADOW_AWAY))
    soft = (0.5 * pixel / radius).expand(points.shape[:-1])
    cover, second, close, cast = (torch.empty(points.shape[:-1]) for _ in range(4))
    depth, slope = torch.empty(points.shape[:-1]), torch.empty(points.shape)
    for shape in {s.shape for s in scenes}:
        rows = torch.tensor([i for i, s in enumerate(scenes) if s.shape == shape])
        away = relief.distance(shape, own[rows])
        cover[rows] = (0.5 - away / (2 * soft[rows])).clamp(0, 1)
        close[rows] = torch.sigmoid(-away / 0.045)
        cast[rows] = torch.sigmoid(-relief.distance(shape, shifted[rows]) / 0.085)
        depth[rows], slope[rows] = relief.walls(shape, own[rows])
    for fill in {s.fill for s in scenes}:
        rows = torch.tensor([i for i, s in enumerate(scenes) if s.fill == fill])
        second[rows] = _fill_amount(fill, own[rows], soft[rows])
    shade, gloss = relief.shine(depth, slope, angle, high)
    shadow = high * (1 - (1 - 0.5 * SHADOW * close) * (1 - SHADOW * cast))
    return Layers(cover, second, shade, gloss, shadow)


def render(
    scenes: Sequence[Scene], size: int = SIZE, window: Sequence[tuple[float, float]] | None = None, span: float = 1.0
) -> Tensor:
    """Draw scenes, anti-aliased. Returns (B, 3, size, size), float32 in [0, 1].

    ``window`` gives the upper left corner of a square cut-out of side ``span`` for each scene
    (default: the whole picture).
    """
    points, pixel = _grid(scenes, size, window, span)
    color = torch.tensor([COLORS[s.color] for s in scenes])[:, None, None, :]
    picture = _compose(_ground(scenes, points, pixel), layers(scenes, points, pixel), color)
    return picture.permute(0, 3, 1, 2).contiguous()


def candidates(scene: Scene, size: int) -> Tensor:
    """The scene under every shape, fill, color and background, in the order of their tables: (8, 4,
    8, 8, 3, size, size)."""
    variants = [replace(scene, shape=shape, fill=fill) for shape in SHAPES for fill in FILLS]
    points, pixel = _grid([scene], size, None, 1.0)
    parts = layers(variants, points.expand(len(variants), *points.shape[1:]), pixel)
    parts = Layers(*(getattr(parts, f.name).unflatten(0, (8, 4))[:, :, None, None] for f in fields(Layers)))
    grounds = [replace(scene, background=name) for name in BACKGROUNDS]
    color = torch.tensor(list(COLORS.values()))[:, None, None, None, :]
    ground = _ground(grounds, points.expand(len(grounds), *points.shape[1:]), pixel)
    return _compose(ground, parts, color).movedim(-1, -3)


def _paint(picture: Tensor, amount: Tensor, color: Tensor | float) -> Tensor:
    return picture + amount * (color - picture)


def paint_and_rest(ground: Tensor, parts: Layers) -> tuple[Tensor, Tensor]:
    """A picture is linear in the shape's colour: ``paint * color + rest``. ground (..., H, W, 3);
    paint (..., H, W, 1), rest (..., H, W, 3)."""
    cover, second, shade, gloss, shadow = (getattr(parts, f.name)[..., None] for f in fields(Layers))
    paint = cover * shade * (1 - TINT * second)
    return paint, ground * (1 - shadow) * (1 - cover) + cover * (shade * TINT * second + gloss)


def _compose(ground: Tensor, parts: Layers, color: Tensor) -> Tensor:
    """A shape with its shadow on the ground; ground and color (..., H, W, 3 or 1)."""
    paint, rest = paint_and_rest(ground, parts)
    return paint * color + rest


def _ground(scenes: Sequence[Scene], points: Tensor, pixel: float) -> Tensor:
    """The backgrounds under their light, with dots, at points (B, H, W, 2): (B, H, W, 3)."""
    along = torch.tensor([(math.cos(s.shade_angle), math.sin(s.shade_angle)) for s in scenes])[:, None, None, :]
    shade = torch.tensor([s.shade for s in scenes])[:, None, None]
    light = 1 + shade * ((points - 0.5) * along).sum(-1) * 2
    picture = (torch.tensor([BACKGROUNDS[s.background] for s in scenes])[:, None, None, :] * light[..., None]).clamp(
        0, 1
    )
    dots = torch.tensor((-9.0, -9.0, 0.01)).repeat(len(scenes), MAX_DOTS, 1)  # out of sight
    for i, scene in enumerate(scenes):
        if scene.dots:
            dots[i, : len(scene.dots)] = torch.tensor(scene.dots)
    for x, y, r in dots.permute(1, 2, 0):
        x, y, r = x[:, None, None], y[:, None, None], r[:, None, None]
        u, v = (points[..., 0] - x) / r, (points[..., 1] - y) / r
        lx, ly, lz = relief.LIGHT
        cast = torch.hypot(u + 0.55 * lx / lz, v + 0.55 * ly / lz)
        picture = _paint(picture, (SHADOW * torch.sigmoid((1.0 - cast) / 0.16))[..., None], 0.0)
        shade, gloss = relief.lit(0.97 * u, 0.97 * v)
        cover = (0.5 - (torch.hypot(u, v) - 1) * r / pixel).clamp(0, 1)
        picture = _paint(picture, cover[..., None], (PEBBLE * shade + gloss)[..., None])
    return picture
