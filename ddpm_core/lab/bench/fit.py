"""How well masks read off the path fit what a true edit changes: the choice behind the defaults of
``regions``, to be repeated when the demo model changes.

    python -m ddpm_core.lab.bench.fit              # 48 scenes that the bench does not have, about 4 minutes
    python -m ddpm_core.lab.bench.fit --scenes 8

No edit is run: source and true target are drawn, so that the cells that differ are known, and a
mask is measured by its overlap with them (intersection over union of soft masks).
"""

from __future__ import annotations

import argparse
import itertools

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ...demo.model import FOLDER
from ...demo.scenes import render
from ...inversions.edit_friendly import invert
from ...maps import NoiseMaps
from ...models.stable_diffusion import Pipeline
from ...plan import Plan
from ...regions import contrast, difference, mask_of
from ..tables import markdown
from .tasks import KINDS, Task, random_tasks

SEED = 2718  # of the scenes; the bench has others
STEPS, SKIP, BATCH = 20, 4, 8
WINDOWS = ((100, 0), (80, 40), (60, 30), (30, 0))  # per cent of the schedule
THRESHOLDS, SOFTNESS = (0.3, 0.4, 0.5, 0.6), (0.2, 0.4, 0.6)


def overlap(mask: Tensor, cells: Tensor) -> Tensor:
    """Intersection over union of soft masks (B, 1, h, w): (B,)."""
    return torch.minimum(mask, cells).sum((1, 2, 3)) / torch.maximum(mask, cells).sum((1, 2, 3))


def changed_cells(tasks: list[Task], cell: int) -> Tensor:
    """The share of each cell's pixels in which source and true target differ: (B, 1, h, w)."""
    sources, targets = (render([getattr(task, side) for task in tasks]) for side in ("source", "target"))
    return avg_pool2d(((sources - targets).abs().amax(1, keepdim=True) > 1 / 255).float(), cell)


def maps_and_amounts(model: Pipeline, tasks: list[Task]) -> tuple[NoiseMaps, dict[tuple[int, int], Tensor]]:
    """The sources' maps, and how far the targets are from them in each window of steps."""
    sources, targets = (list(words) for words in zip(*(task.captions for task in tasks)))
    x0 = model.encode(render([task.source for task in tasks]))
    maps = invert(model.denoiser(sources, guidance=1), x0, Plan(model.sigmas(STEPS), SKIP), chunk=2)
    target = model.denoiser(targets, guidance=1)
    return maps, {window: difference(target, maps, start=window[0], end=window[1], chunk=2) for window in WINDOWS}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ddpm_core.lab.bench.fit", description=__doc__.split(":")[0])
    parser.add_argument("--scenes", type=int, default=48, help="edits to measure (default: %(default)s)")
    count = parser.parse_args(arguments).scenes
    model, tasks = Pipeline.load(FOLDER), random_tasks(count, SEED)
    settings = list(itertools.product(WINDOWS, THRESHOLDS, SOFTNESS))
    fits: dict[tuple, list[float]] = {setting: [] for setting in settings}
    contrasts: list[float] = []
    for start in range(0, count, BATCH):
        part = tasks[start : start + BATCH]
        cells, (maps, amounts) = changed_cells(part, model.cell), maps_and_amounts(model, part)
        contrasts += contrast(amounts[WINDOWS[0]], maps).tolist()
        for window, threshold, softness in settings:
            mask = mask_of(amounts[window], threshold=threshold, softness=softness)
            fits[window, threshold, softness] += overlap(mask, cells).tolist()
    rows = []
    for (window, threshold, softness), values in sorted(fits.items(), key=lambda item: -sum(item[1])):
        kinds = {kind: [v for v, task in zip(values, tasks) if task.kind == kind] for kind in KINDS}
        means = [sum(some) / max(1, len(some)) for some in (values, *kinds.values())]
        rows.append([f"{window[0]} to {window[1]} %", f"{threshold:g}", f"{softness:g}", *(f"{m:.3f}" for m in means)])
    print(markdown(["steps", "threshold", "softness", "all", *KINDS], rows))
    print(f"least contrast of an edit: {min(contrasts):.2f}")


if __name__ == "__main__":
    main()
