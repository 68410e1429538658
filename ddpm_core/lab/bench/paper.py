"""The paper's other experiments on the demo model: shifts, colours, what maps look like, and the
Gaussian toy (arXiv 2304.06140, An Edit Friendly DDPM Noise Space)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ...demo.scenes import COLORS, SIZE, Scene, caption, coverage, render
from ...edits.color import luminance, paint, push_color
from ...edits.shift import shift
from ...inversions.edit_friendly import invert
from ...inversions.native import native_path
from ...inversions.sdedit import sdedit
from ...maps import NoiseMaps
from ...measure.metrics import psnr
from ...measure.stats import Statistics, angles, statistics
from ...models.stable_diffusion import Pipeline, leading_timesteps
from ...plan import Plan
from ..store import Row, Store
from .methods import Inversion, edit
from .points import group
from .tasks import Task, Truth

STEPS = 50
SHIFTS = (1, 2, 4, 8)  # latent cells of 24; the paper: 1 to 16 pixels of 256
COLOR_SKIP = 25
STRENGTHS = (0.05, 0.1, 0.2, 0.5, 1.0)  # of the colour push, the paper's s
SDEDIT_SKIPS = (20, 25, 30, 35, 40)
# About how many samples a scene takes, a decoded picture as ten.
SHIFT_SAMPLES = 2 * (STEPS + len(SHIFTS) * (STEPS + 10))
COLOR_SAMPLES = (
    STEPS - COLOR_SKIP + 2 * sum(STEPS - skip + 10 for skip in (*[COLOR_SKIP] * len(STRENGTHS), *SDEDIT_SKIPS))
)
PAINTINGS = {"flat": False, "lights kept": True}  # how the colour is painted in
SHIFT_KEY = ("scene", "method", "cells")
SHIFT_MEASURES = {"psnr_moved": "what was moved, dB", "psnr_vacated": "vacated cells, dB", "psnr": "all, dB"}
MAPS_KEY, MAPS_MEASURES = ("method", "time"), ("variance", "correlation")
COLOR_KEY = ("scene", "method", "setting")
COLOR_MEASURES = {
    "reached": "colour reached",
    "inside_rmse": "error inside, 1/255",
    "texture": "texture kept inside",
    "outside_psnr": "kept outside, dB",
}


def measure_shifts(model: Pipeline, scenes: list[Scene], store: Store, advance: Callable[[int], None]) -> None:
    """Shift the maps of each scene and compare with the truly shifted drawing (paper section 4.1
    and figure 5).

    Towards the picture's farther side, so that most of the shape stays inside. In dB: where
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
            yield {
                "scene": number,
                "method": method,
                "cells": cells,
                "psnr_moved": psnr(picture, truth, moved).item(),
                "psnr_vacated": psnr(picture, truth, 1 - moved).item(),
                "psnr": psnr(picture, truth).item(),
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
    source, shape = truth.sources.movedim(1, -1), inside.movedim(1, -1)
    for painting, keep_lights in PAINTINGS.items():
        painted = paint(source, shape, COLORS[task.target.color], keep_lights=keep_lights)
        aim = model.encode(painted.movedim(-1, 1))
        runs = [("push", strength, push_color(maps, aim, cells, strength=strength)) for strength in STRENGTHS]
        runs += [
            ("SDEdit", skip, sdedit(aim, Plan(model.sigmas(STEPS), skip=skip, seed=number))) for skip in SDEDIT_SKIPS
        ]
        for method, value, changed in runs:
            picture = edit(model, changed, [""], 1.0)
            texture = math.nan if scene.fill == "plain" else _texture(picture, truth.sources, core)
            yield {
                "scene": number,
                "method": f"{method}, {painting}",
                "setting": value,
                "reached": float(truth.succeeds(picture)[0]),
                "inside_rmse": 255 * 10 ** (-psnr(picture, truth.targets, core).item() / 20),
                "texture": texture,
                "outside_psnr": psnr(picture, truth.sources, 1 - (inside > 0).float()).item(),
            }


def _texture(picture: Tensor, source: Tensor, mask: Tensor) -> float:
    """Correlation of the luminance of two pictures (1, 3, H, W) inside a mask (1, 1, H, W)."""
    inside = mask.movedim(1, -1).bool()
    lights = [luminance(one.movedim(1, -1))[inside] for one in (picture, source)]
    return torch.corrcoef(torch.stack(lights))[0, 1].item()


def measure_maps(model: Pipeline, scenes: list[Scene], steps: int, store: Store) -> None:
    """What the maps of scenes look like by either inversion (paper figure 4), step by step; the
    last step has no next one."""
    methods = ("edit-friendly", "native")
    if all(len(store.select(method=method)) == steps - 1 for method in methods):
        return
    x0, words = torch.cat([model.encode(render([scene])) for scene in scenes]), [caption(scene) for scene in scenes]
    for method in methods:
        of_maps = statistics(Inversion(method, steps).run(model, x0, words, skip=0))
        correlations = [*of_maps.correlation.tolist(), math.nan]
        columns = zip(of_maps.times.tolist(), of_maps.variance.tolist(), correlations)
        store.append(
            {"method": method, "time": time, "variance": variance, "correlation": correlation}
            for time, variance, correlation in columns
        )


def statistics_of(rows: list[Row]) -> dict[str, Statistics]:
    """The rows of ``measure_maps`` as what ``statistics`` gave."""
    statistics_by_method = {}
    for (method,), members in group(rows, ["method"]).items():
        columns = [torch.tensor([row[name] for row in members]) for name in ("time", *MAPS_MEASURES)]
        times, variance, correlation = columns
        statistics_by_method[method] = Statistics(times, variance, correlation[:-1])
    return statistics_by_method


def toy(points: int = 2000, steps: int = 40, seed: int = 0) -> dict[str, NoiseMaps]:
    """Maps of 2-D points from N((10, 10), I) under the exact denoiser, on DDPM's linear schedule
    (paper section 3.1 and figure 3); points are the batch."""
    generator = torch.Generator().manual_seed(seed)
    x0 = 10 + torch.randn(points, 2, 1, 1, generator=generator, dtype=torch.float64)
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    noisy = leading_timesteps(steps, 1000, 1000 // steps - 1)  # the first one is the noisiest of all
    sigmas = torch.cat((((1 - abar) / abar).sqrt()[noisy], torch.zeros(1, dtype=torch.float64)))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        variance = sigma.view(-1, 1, 1, 1) ** 2
        return (x + 10 * variance) / (1 + variance)

    plan = Plan(sigmas, seed=seed)
    return {
        "edit-friendly": invert(denoise, x0, plan),
        "native": invert(denoise, x0, plan, path=native_path(x0, plan)),
    }


def toy_angles(maps: NoiseMaps) -> Tensor:
    """Angles in degrees between neighbouring maps of every point: (T-2, points); the last step adds
    no noise."""
    ups = maps.per_step([step.up for step in maps.steps[:-1]])
    return angles((maps.residuals[:-1] / ups).flatten(2))
