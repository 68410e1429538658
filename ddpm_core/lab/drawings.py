"""A newcomer's first try: own drawings, edited: ``python -m ddpm_core.lab.drawings``.

The pictures are drawn as a plain painting program does it: colours by their common names, hard
edges, an even ground. Each is inverted under its caption and edited at the demo's settings with
the mask that comes by itself; the sheet shows drawing, reconstruction and edit side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import torch
from torch import Tensor

from ..demo.judge import ATTRIBUTES, judge
from ..demo.model import FOLDER
from ..demo.scenes import SIZE, Scene, caption
from ..inversions.edit_friendly import invert
from ..measure.pictures import from_image, labelled_grid
from ..models.stable_diffusion import Pipeline
from ..plan import DEMO, Plan
from ..replay import replay
from .editing import WIDE, Mode, edited_latent

# What is drawn (shape, fill, colour, ground), and the edit: which attribute becomes what.
DRAWINGS = (
    (("heart", "dotted", "orange", "purple"), ("color", "green")),
    (("heart", "dotted", "orange", "purple"), ("shape", "star")),
    (("heart", "dotted", "orange", "purple"), ("fill", "plain")),
    (("circle", "plain", "red", "yellow"), ("color", "blue")),
    (("star", "plain", "yellow", "blue"), ("shape", "heart")),
    (("square", "striped", "green", "pink"), ("background", "orange")),
    (("ring", "plain", "purple", "green"), ("fill", "striped")),
    (("triangle", "checkered", "blue", "orange"), ("color", "red")),
    (("cross", "plain", "teal", "red"), ("shape", "circle")),
    (("moon", "plain", "yellow", "purple"), ("background", "teal")),
)
_PLACES = ((96, 96, 52), (84, 100, 46), (104, 88, 56))  # x, y, radius in pixels


def draw(shape: str, fill: str, color: str, ground: str, place: tuple[int, int, int] = _PLACES[0]) -> Tensor:
    """(3, 192, 192) in [0, 1], without anti-aliasing."""
    from PIL import Image, ImageColor, ImageDraw

    x, y, r = place
    paper = ImageColor.getrgb(ground)
    lighter = tuple((c + 2 * 255) // 3 for c in ImageColor.getrgb(color))
    region = Image.new("1", (SIZE, SIZE))
    _draw_shape(ImageDraw.Draw(region), shape, x, y, r)
    surface = Image.new("RGB", (SIZE, SIZE), color)
    pen, cell = ImageDraw.Draw(surface), r * 0.36
    for i in range(-8, 9):
        if fill == "striped" and i % 2 == 0:
            pen.rectangle((0, y + i * cell, SIZE, y + (i + 1) * cell), lighter)
        for j in range(-8, 9):
            u, v = x + j * cell, y + i * cell
            if fill == "checkered" and (i + j) % 2:
                pen.rectangle((u, v, u + cell, v + cell), lighter)
            if fill == "dotted" and i % 2 == 0 and j % 2 == 0:
                pen.ellipse((u - cell * 0.6, v - cell * 0.6, u + cell * 0.6, v + cell * 0.6), lighter)
    soft_ground = tuple((2 * c + 255) // 3 for c in paper)
    picture = Image.composite(surface, Image.new("RGB", (SIZE, SIZE), soft_ground), region)
    return from_image(picture)


def _draw_shape(pen, shape: str, x: float, y: float, r: float) -> None:
    def disc(u, v, radius, ink=1):
        pen.ellipse((u - radius, v - radius, u + radius, v + radius), ink)

    if shape in ("circle", "ring", "moon"):
        disc(x, y, r)
        if shape == "ring":
            disc(x, y, 0.5 * r, 0)
        if shape == "moon":
            disc(x + 0.45 * r, y - 0.1 * r, 0.75 * r, 0)
    elif shape == "square":
        pen.rectangle((x - 0.75 * r, y - 0.75 * r, x + 0.75 * r, y + 0.75 * r), 1)
    elif shape == "cross":
        pen.rectangle((x - 0.33 * r, y - r, x + 0.33 * r, y + r), 1)
        pen.rectangle((x - r, y - 0.33 * r, x + r, y + 0.33 * r), 1)
    elif shape == "heart":
        disc(x - 0.46 * r, y - 0.35 * r, 0.5 * r)
        disc(x + 0.46 * r, y - 0.35 * r, 0.5 * r)
        pen.polygon([(x - 0.9 * r, y - 0.1 * r), (x + 0.9 * r, y - 0.1 * r), (x, y + r)], 1)
    else:
        points, inner = (5, 0.45) if shape == "star" else (3, 0.5)
        corners = [((r, inner * r)[i % 2], i * math.pi / points) for i in range(2 * points)]
        pen.polygon([(x + length * math.sin(a), y - length * math.cos(a)) for length, a in corners], 1)


def edit(model: Pipeline, picture: Tensor, source: str, target: str) -> tuple[Tensor, Tensor]:
    """Reconstruction and edit of a picture (3, H, W), each (3, H, W)."""
    plan = Plan(model.sigmas(DEMO.steps), DEMO.skip, guidance=DEMO.guidance_source)
    known = model.denoiser(source, guidance=DEMO.guidance_source)
    maps = invert(known, model.encode(picture[None]), plan)
    edited = edited_latent(Mode(DEMO.guidance_target, DEMO.guidance_source, **WIDE), model, maps, source, target)
    return model.decode(replay(known, maps))[0], model.decode(edited)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=FOLDER, help="folder of the pipeline")
    parser.add_argument("--out", type=Path, default=Path("out/drawings.png"))
    args = parser.parse_args()
    model = Pipeline.load(args.model)
    rows, edits = [[], [], []], []
    for i, (drawn, (name, value)) in enumerate(DRAWINGS):
        picture = draw(*drawn, _PLACES[i % len(_PLACES)])
        scene = Scene(**dict(zip(ATTRIBUTES, drawn)), relief=0.0)
        target = dataclasses.replace(scene, **{name: value})
        rebuilt, edited = edit(model, picture, caption(scene), caption(target))
        for row, (label, shown) in zip(rows, (("", picture), ("", rebuilt), (f"to {value}", edited))):
            row.append((label, shown))
        edits.append((target, edited))
    judged = judge(torch.stack([edited for _, edited in edits]).clamp(0, 1))
    for (target, _), found in zip(edits, judged):
        right = all(getattr(target, name) == getattr(found, name) for name in ATTRIBUTES)
        print(f"{caption(target)}: {'as asked' if right else 'judged ' + caption(found)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    labelled_grid(rows, side=SIZE).save(args.out)
    print(f"The pictures lie in {args.out.resolve()}")


if __name__ == "__main__":
    main()
