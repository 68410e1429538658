"""The paper's other figures on the demo model: shifts, colours, what maps look like, and the
Gaussian toy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ...demo.scenes import COLORS, SIZE, Scene, caption, coverage, render
from ...edits.color import paint, push_color
from ...edits.shift import shift
from ...inversions.edit_friendly import invert
from ...inversions.native import native_path
from ...inversions.sdedit import sdedit
from ...maps import NoiseMaps
from ...measure.metrics import psnr
from ...measure.stats import Statistics, angles, statistics
from ...models.stable_diffusion import Pipeline
from ...plan import Plan
from .methods import Inversion, edit
from .report import group
from .store import Row, Store
from .tasks import Task, Truth

STEPS = 50
SHIFTS = (1, 2, 4, 8)  # latent cells of 24; the paper: 1 to 16 pixels of 256
COLOR_SKIP = 25
STRENGTHS = (0.05, 0.1, 0.2, 0.5, 1.0)  # of the colour push, the paper's s
SDEDIT_SKIPS = (20, 25, 30, 35, 40)
PAINTINGS = {"flat": False, "lights kept": True}  # how the colour is painted in
SHIFT_KEY = ("scene", "method", "cells")
SHIFT_FIGURES = {"psnr_moved": "what was moved, dB", "psnr_vacated": "vacated cells, dB", "psnr": "all, dB"}
MAPS_KEY, MAPS_FIGURES = ("method", "time"), ("variance", "correlation")
COLOR_KEY = ("scene", "method", "setting")
COLOR_FIGURES = {
    "reached": "colour reached",
    "inside_rmse": "error inside, 1/255",
    "texture": "texture kept inside",
    "outside_psnr": "kept outside, dB",
}


def measure_shifts(model: Pipeline, scenes: list[Scene], store: Store, advance: Callable[[int], None]) -> None:
    """Shift the maps of each scene and compare with the truly shifted drawing (paper section 4.1
    and figure 5).

    Towards the picture's farther side, so that most of the shape stays inside. Figures in dB: where
    the picture was moved to, in the vacated cells, and in all.
    """
    for number, scene in enumerate(scenes):
        if not store.holds(
            {"scene": number, "method": method, "cells": cells}
            for method in ("edit-friendly", "native")
            for cells in SHIFTS
        ):
            store.append(_shifts(model, number, scene))
        advance(1)


def _shifts(model: Pipeline, number: int, scene: Scene) -> Iterator[Row]:
    x0, words = model.encode(render([scene])), [caption(scene)]
    way = 1 if scene.x < 0.5 else -1
    for method in ("edit-friendly", "native"):
        maps = Inversion(method, STEPS).run(model, x0, words, skip=0)
        for cells in SHIFTS:
            pixels = way * cells * model.cell
            truth = render([scene], window=[(-pixels / SIZE, 0.0)])
            moved = torch.zeros(1, 1, SIZE, SIZE)
            moved[..., max(pixels, 0) : SIZE + min(pixels, 0)] = 1
            picture = edit(model, shift(maps, way * cells, 0, seed=number), words, 1.0)
            figures = psnr(picture, truth, moved), psnr(picture, truth, 1 - moved), psnr(picture, truth)
            yield {
                "scene": number,
                "method": method,
                "cells": cells,
                **dict(zip(SHIFT_FIGURES, (figure.item() for figure in figures))),
            }


def measure_colors(model: Pipeline, scenes: list[Scene], store: Store, advance: Callable[[int], None]) -> None:
    """Push a colour into each scene's shape, and paint it in and run SDEdit, both without a prompt
    (paper section 4.2 and figure 6).

    Both get the same painted picture, of one flat colour or with lights and darks kept.

    reached       1 where the nearest drawn candidate has the new colour
    inside_rmse   to the truly recoloured scene inside the shape, in 1/255
    texture       correlation of the lightness inside the shape with the source's, 1 is all kept;
                  NaN where a plain shape has none
    outside_psnr  dB to the source outside the shape
    """
    values = {"push": STRENGTHS, "SDEdit": SDEDIT_SKIPS}
    settings = [
        (f"{method}, {painting}", value) for painting in PAINTINGS for method in values for value in values[method]
    ]
    for number, scene in enumerate(scenes):
        if not store.holds({"scene": number, "method": method, "setting": value} for method, value in settings):
            store.append(_colors(model, number, scene))
        advance(1)


def _colors(model: Pipeline, number: int, scene: Scene) -> Iterator[Row]:
    names = [name for name in COLORS if name not in (scene.color, scene.background)]
    task = Task("color", scene, replace(scene, color=names[number % len(names)]))
    truth, inside = Truth([task]), coverage([scene])
    cells, core = torch.nn.functional.avg_pool2d(inside, model.cell), (inside > 0.999).float()
    maps = Inversion(steps=STEPS).run(model, model.encode(truth.sources), [""], skip=COLOR_SKIP)
    for painting, keep_lights in PAINTINGS.items():
        painted = paint(
            truth.sources.movedim(1, -1), inside.movedim(1, -1), COLORS[task.target.color], keep_lights=keep_lights
        ).movedim(-1, 1)
        aim = model.encode(painted)
        runs = [("push", strength, push_color(maps, aim, cells, strength=strength)) for strength in STRENGTHS]
        runs += [
            ("SDEdit", skip, sdedit(aim, Plan(model.sigmas(STEPS), skip=skip, seed=number))) for skip in SDEDIT_SKIPS
        ]
        for method, value, changed in runs:
            picture = edit(model, changed, [""], 1.0)
            yield {
                "scene": number,
                "method": f"{method}, {painting}",
                "setting": value,
                "reached": float(truth.succeeds(picture)[0]),
                "inside_rmse": 255 * 10 ** (-psnr(picture, truth.targets, core).item() / 20),
                "texture": math.nan
                if scene.fill == "plain"
                else _correlation(_lightness(picture), _lightness(truth.sources), core),
                "outside_psnr": psnr(picture, truth.sources, 1 - (inside > 0).float()).item(),
            }


def _lightness(pictures: Tensor) -> Tensor:
    """Luminance (B, 1, H, W), ITU-R BT.709."""
    return (pictures * torch.tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _correlation(one: Tensor, other: Tensor, mask: Tensor) -> float:
    inside = mask.bool()
    return torch.corrcoef(torch.stack((one[inside], other[inside])))[0, 1].item()


def measure_maps(model: Pipeline, scenes: list[Scene], steps: int, store: Store) -> None:
    """What the maps of scenes look like by either inversion (paper figure 4), step by step; the
    last step has no next one."""
    methods, times = ("edit-friendly", "native"), [100 * (steps - i) / steps for i in range(steps - 1)]
    if store.holds({"method": method, "time": time} for method in methods for time in times):
        return
    x0, words = torch.cat([model.encode(render([scene])) for scene in scenes]), [caption(scene) for scene in scenes]
    for method in methods:
        found = statistics(Inversion(method, steps).run(model, x0, words, skip=0))
        columns = zip(times, found.variance.tolist(), [*found.correlation.tolist(), math.nan])
        store.append(
            {"method": method, "time": time, "variance": variance, "correlation": correlation}
            for time, variance, correlation in columns
        )


def statistics_of(rows: list[Row]) -> dict[str, Statistics]:
    """The rows of ``measure_maps`` as what ``statistics`` gave."""
    columns = {
        method: [torch.tensor([row[name] for row in some]) for name in ("time", *MAPS_FIGURES)]
        for (method,), some in group(rows, ["method"]).items()
    }
    return {
        method: Statistics(times, variance, correlation[:-1])
        for method, (times, variance, correlation) in columns.items()
    }


def toy(points: int = 2000, steps: int = 40, seed: int = 0) -> dict[str, NoiseMaps]:
    """Maps of 2-D points from N((10, 10), I) under the exact denoiser, on DDPM's linear schedule
    (paper section 3.1 and figure 3); points are the batch."""
    generator = torch.Generator().manual_seed(seed)
    x0 = 10 + torch.randn(points, 2, 1, 1, generator=generator, dtype=torch.float64)
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    every = 1000 // steps
    sigmas = torch.cat(
        (
            ((1 - abar) / abar).sqrt()[torch.arange(steps).flip(0) * every + every - 1],
            torch.zeros(1, dtype=torch.float64),
        )
    )

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        variance = sigma.view(-1, 1, 1, 1) ** 2
        return (x + 10 * variance) / (1 + variance)

    plan = Plan(sigmas, seed=seed)
    return {
        "edit-friendly": invert(denoise, x0, plan),
        "native": invert(denoise, x0, plan, path=native_path(x0, plan)),
    }


def toy_angles(maps: NoiseMaps) -> Tensor:
    """Angles in degrees between neighbouring maps of every point: (S-2, points); the last step adds
    no noise."""
    ups = torch.tensor([step.up for step in maps.steps[:-1]], dtype=torch.float64)
    return angles(maps.residuals[:-1].flatten(2) / ups[:, None, None])
