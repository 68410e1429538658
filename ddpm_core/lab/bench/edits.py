"""Every method at every setting on the same edits: success, preservation, distance to the truth,
cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...measure.metrics import psnr
from ...models.stable_diffusion import Pipeline
from ..store import Row, Store
from ..tables import mean_over_pairs
from .methods import Inversion, cost, edit
from .tasks import Task, Truth

BATCH = 8  # tasks at a time
BOUND = "autoencoder alone"
KEY = ("task", "name", "steps", "cfg_source", "eta", "solver", "corrections", "skip", "cfg")
MEASURES = ("success", "exact", "kept_psnr", "kept_ssim", "target_psnr")
COLUMNS = ("kind", *MEASURES, "samples", "seconds")
SEEDS_COLUMNS = ("kind", "diversity", "back_psnr")


@dataclass(frozen=True)
class Sweep:
    """One inversion and the edits made from it: every skip with every guidance."""

    inversion: Inversion
    skips: tuple[int, ...]
    cfgs: tuple[float, ...]

    @property
    def settings(self) -> list[tuple[int, float]]:
        return [(skip, cfg) for skip in self.skips for cfg in self.cfgs]

    @property
    def samples(self) -> int:
        """About how many latents the UNet sees for one task, for a progress bar; decoding a picture
        counts as ten."""
        steps, inversion = self.inversion.steps, self.inversion
        branches = 0 if inversion.method == "sdedit" else 1 if inversion.cfg_source == 1 else 2
        inverting = (steps - min(self.skips)) * branches * (1 + inversion.corrections)
        return inverting + sum((steps - skip) * (1 if cfg == 1 else 2) + 10 for skip, cfg in self.settings)


class Batches:
    """The tasks in batches, each drawn, encoded and kept until the next is asked for."""

    def __init__(self, model: Pipeline, tasks: Sequence[Task]):
        self.model, self.tasks = model, list(tasks)
        self._held: tuple[int, Truth, Tensor] | None = None

    def starts(self, count: int | None = None) -> range:
        """The number of every batch's first task, for the first ``count`` tasks."""
        return range(0, len(self.tasks) if count is None else min(count, len(self.tasks)), BATCH)

    def get(self, start: int) -> tuple[Truth, Tensor]:
        """What the batch is judged by, and its clean latents (B, C, h, w)."""
        if self._held is None or self._held[0] != start:
            self._held = None  # its candidates are large
            truth = Truth(self.tasks[start : start + BATCH])
            self._held = start, truth, self.model.encode(truth.sources)
        return self._held[1:]


def keys(start: int, count: int, inversion: Inversion, skip: int, cfg: float) -> list[Row]:
    """What names the rows of tasks start, start + 1, ... at a setting."""
    names = ("name", "steps", "cfg_source", "eta", "corrections")
    setting = {
        **{name: getattr(inversion, name) for name in names},
        "solver": inversion.solver.value,
        "skip": skip,
        "cfg": cfg,
    }
    return [{"task": start + i, **setting} for i in range(count)]


def run(
    model: Pipeline,
    batches: Batches,
    sweeps: Sequence[Sweep],
    store: Store,
    count: int | None,
    advance: Callable[[int], None],
) -> None:
    """Fill the store with a row for each of the first ``count`` tasks at every setting; what it
    holds is not done again.

    ``advance`` hears of samples done, as ``Sweep.samples`` counts them.
    """
    for start in batches.starts(count):
        for sweep in sweeps:
            size = len(batches.tasks[start : start + BATCH])
            if not all(store.holds(keys(start, size, sweep.inversion, *setting)) for setting in sweep.settings):
                store.append(_measure(model, sweep, start, *batches.get(start)))
            advance(sweep.samples * size)


def run_bound(model: Pipeline, batches: Batches, store: Store, advance: Callable[[int], None]) -> None:
    """What no edit can beat: the true target, coded and decoded by the autoencoder. Each counts as
    20 samples."""
    for start in batches.starts():
        size = len(batches.tasks[start : start + BATCH])
        rows = keys(start, size, Inversion(BOUND, 0), 0, 0.0)
        if not store.holds(rows):
            truth, _ = batches.get(start)
            decoded = torch.cat([model.decode(model.encode(target[None])) for target in truth.targets])
            store.append(
                {**row, "kind": task.kind, **measures, "samples": 0, "seconds": 0}
                for row, task, measures in zip(rows, truth.tasks, truth.score(decoded))
            )
        advance(20 * size)


def _measure(model: Pipeline, sweep: Sweep, start: int, truth: Truth, x0: Tensor) -> Iterator[Row]:
    """The rows of one batch. An inversion's cost is shared out to each skip in proportion to the
    steps that it needs."""
    sources, targets = zip(*(task.captions for task in truth.tasks))
    first, steps = min(sweep.skips), sweep.inversion.steps
    with cost(model) as inverting:
        maps = sweep.inversion.run(model, x0, sources, skip=first)
    for skip, cfg in sweep.settings:
        with cost(model) as editing:
            pictures = edit(model, maps.skip(skip), targets, cfg)
        share = (steps - skip) / (steps - first)
        taken = {
            name: (share * getattr(inverting, name) + getattr(editing, name)) / len(x0)
            for name in ("samples", "seconds")
        }
        rows = keys(start, len(x0), sweep.inversion, skip, cfg)
        for row, task, measures in zip(rows, truth.tasks, truth.score(pictures)):
            yield {**row, "kind": task.kind, **measures, **taken}


def run_seeds(
    model: Pipeline,
    batches: Batches,
    settings: Iterable[tuple[Inversion, int, float]],
    store: Store,
    count: int,
    seeds: int,
    advance: Callable[[int], None],
) -> None:
    """Several seeds of an edit, and the replay under the source's own prompt and guidance, for the
    first ``count`` tasks.

    diversity  how far the edits of the seeds lie apart; 0 where an inversion draws nothing
    back_psnr  dB, of the source given back
    """
    for start in batches.starts(count):
        for inversion, skip, cfg in settings:
            size = len(batches.tasks[start : start + BATCH])
            rows = keys(start, size, inversion, skip, cfg)
            if not store.holds(rows):
                truth, x0 = batches.get(start)
                measures = _seeds(model, inversion, skip, cfg, truth, x0, seeds)
                store.append(
                    {**row, "kind": task.kind, "diversity": apart, "back_psnr": back}
                    for row, task, apart, back in zip(rows, truth.tasks, *measures)
                )
            advance(Sweep(inversion, (skip,), (cfg,)).samples * (seeds + 1) * size)


def _seeds(
    model: Pipeline, inversion: Inversion, skip: int, cfg: float, truth: Truth, x0: Tensor, seeds: int
) -> tuple[list[float], list[float]]:
    """diversity and back_psnr of each task of a batch."""
    sources, targets = zip(*(task.captions for task in truth.tasks))
    drawn = range(1 if inversion.method == "ddim" else seeds)
    maps_of_seeds = [inversion.run(model, x0, sources, skip=skip, seed=1000 * seed) for seed in drawn]
    back = psnr(edit(model, maps_of_seeds[0], sources, inversion.cfg_source), truth.sources)
    edits_of_seeds = [edit(model, maps, targets, cfg) for maps in maps_of_seeds]
    return [diversity(edits) for edits in zip(*edits_of_seeds)], back.tolist()


def diversity(edits: Sequence[Tensor]) -> float:
    """How far the edits (3, H, W) of a task by several seeds lie apart: root mean square over
    pixels and pairs, in 1/255; 0 for one edit alone."""
    if len(edits) < 2:
        return 0.0
    return 255 * math.sqrt(mean_over_pairs(edits, lambda one, other: (one - other).square().mean().item()))
