"""Every method at every setting on the same edits: success, preservation, distance to the truth,
cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...measure.metrics import psnr
from ...models.stable_diffusion import Pipeline
from ..diffedit import NOISES
from ..editing import Mode, edited_latent
from ..store import Row, Store
from ..tables import mean_over_pairs
from .methods import Cost, Inversion, cost, decoded, edit
from .shared import Shared, directed, of_items
from .tasks import KINDS, Task, Truth

BATCH = 8  # tasks at a time
WORDS = {
    "p2p": "Prompt-to-Prompt",
    "masactrl": "MasaCtrl",
    "zero": "pix2pix-zero",
    "auto": "mask",
    "wide": "wide mask",
    "diffedit": "DiffEdit's mask",
    "source": "guidance from the source",
}
BOUND, BOUND_SAMPLES = "autoencoder alone", 20
KEY = ("task", "name", "steps", "cfg_source", "eta", "solver", "corrections", "skip", "cfg")
MEASURES = ("success", "exact", "kept_psnr", "kept_ssim", "target_psnr", "form_iou")
COLUMNS = ("kind", *MEASURES, "samples", "seconds")
SEEDS_COLUMNS = ("kind", "diversity", "back_psnr")


@dataclass(frozen=True)
class Sweep:
    """One inversion and the edits made from it: every skip with every guidance.

    mode   how the edits are made, but for the guidance
    kinds  of edits that it is measured on
    along  edits along a direction between captions instead of to the target's caption
    """

    inversion: Inversion
    skips: tuple[int, ...]
    cfgs: tuple[float, ...]
    mode: Mode = Mode(1.0)
    kinds: tuple[str, ...] = KINDS
    along: bool = False

    @property
    def name(self) -> str:
        """Inversion and mode in words."""
        words = [self.inversion.name, "direction"] if self.along else [self.inversion.name]
        mask = "wide" if self.mode.mask == "auto" and self.mode.grow else self.mode.mask
        choices = (self.mode.attention, mask, self.mode.guidance)
        return " + ".join([*words, *(WORDS[choice] for choice in choices if choice in WORDS)])

    @property
    def settings(self) -> list[tuple[int, float]]:
        return [(skip, cfg) for skip in self.skips for cfg in self.cfgs]

    def numbers(self, tasks: Sequence[Task]) -> list[int]:
        """Which of some tasks are its own."""
        return [i for i, task in enumerate(tasks) if task.kind in self.kinds]

    @property
    def inverting(self) -> int:
        """About how many latents the UNet sees for one task's inversion."""
        inversion = self.inversion
        branches = 0 if inversion.method == "sdedit" else 1 if inversion.cfg_source == 1 else 2
        return (inversion.steps - min(self.skips)) * branches * (1 + inversion.corrections)

    @property
    def editing(self) -> int:
        """The same for all of a task's edits with their masks; decoding a picture counts as ten."""
        mode, steps = self.mode, self.inversion.steps
        masks = {"auto": sum(steps - skip for skip in self.skips), "diffedit": 2 * NOISES}
        more = {"p2p": max(mode.cross, mode.self_attention), "masactrl": 1 - mode.start, "zero": 3}
        rows = more.get(mode.attention, 0)
        if mode.guidance == "source":
            rows += self.inversion.cfg_source != 1
        edits = sum((steps - skip) * (rows + (1 if cfg == 1 else 2)) + 10 for skip, cfg in self.settings)
        return round(masks.get(mode.mask, 0) + edits)

    @property
    def samples(self) -> int:
        """Both, for a progress bar."""
        return self.inverting + self.editing


class Batches:
    """The tasks in batches, each drawn, encoded and kept until the next is asked for."""

    def __init__(self, model: Pipeline, tasks: Sequence[Task]):
        self.model, self.tasks = model, list(tasks)
        self._held: tuple[int, Shared] | None = None

    def starts(self, count: int | None = None) -> range:
        """The number of every batch's first task, for the first ``count`` tasks."""
        return range(0, len(self.tasks) if count is None else min(count, len(self.tasks)), BATCH)

    def get(self, start: int) -> tuple[Truth, Tensor]:
        """What the batch is judged by, and its clean latents (B, C, h, w)."""
        shared = self.shared(start)
        return shared.truth, shared.x0

    def shared(self, start: int) -> Shared:
        """The batch with what its edits have in common."""
        if self._held is None or self._held[0] != start:
            self._held = None  # its candidates are large
            truth = Truth(self.tasks[start : start + BATCH])
            self._held = start, Shared(self.model, truth, self.model.encode(truth.sources))
        return self._held[1]


def keys(start: int, count: int, inversion: Inversion, skip: int, cfg: float, name: str | None = None) -> list[Row]:
    """What names the rows of tasks start, start + 1, ... at a setting; ``name`` is the inversion's
    unless it is more than that."""
    names = ("steps", "cfg_source", "eta", "corrections")
    setting = {
        "name": name or inversion.name,
        **{column: getattr(inversion, column) for column in names},
        "solver": inversion.solver.value,
        "skip": skip,
        "cfg": cfg,
    }
    return [{"task": start + i, **setting} for i in range(count)]


def keys_of(sweep: Sweep, start: int, numbers: Sequence[int], skip: int, cfg: float) -> list[Row]:
    """``keys`` of some tasks of a batch."""
    rows = keys(start, max(numbers, default=-1) + 1, sweep.inversion, skip, cfg, sweep.name)
    return [rows[i] for i in numbers]


def firsts(sweeps: Iterable[Sweep]) -> dict[Inversion, Sweep]:
    """For every inversion, the sweep that needs the most of it."""
    return {sweep.inversion: sweep for sweep in sorted(sweeps, key=lambda sweep: -min(sweep.skips))}


def samples_of(sweeps: Sequence[Sweep], tasks: Sequence[Task]) -> int:
    """About how many samples ``run`` takes for some tasks, each inversion once."""
    inverting = len(tasks) * sum(sweep.inverting for sweep in firsts(sweeps).values())
    return inverting + sum(sweep.editing * len(sweep.numbers(tasks)) for sweep in sweeps)


def run(
    model: Pipeline,
    batches: Batches,
    sweeps: Sequence[Sweep],
    store: Store,
    count: int | None,
    advance: Callable[[int], None],
) -> None:
    """Fill the store with a row for each of the first ``count`` tasks at every setting; what it
    holds is not done again, and what several sweeps need is done once a batch.

    ``advance`` hears of samples done, as ``samples_of`` counts them.
    """
    first = firsts(sweeps)
    for start in batches.starts(count):
        tasks = batches.tasks[start : start + BATCH]
        for sweep in sweeps:
            numbers = sweep.numbers(tasks)
            if not all(store.holds(keys_of(sweep, start, numbers, *setting)) for setting in sweep.settings):
                shared = batches.shared(start)
                store.append(_measure(model, sweep, start, numbers, shared, min(first[sweep.inversion].skips)))
            advance(sweep.editing * len(numbers))
        advance(sum(sweep.inverting for sweep in first.values()) * len(tasks))


def run_bound(model: Pipeline, batches: Batches, store: Store, advance: Callable[[int], None]) -> None:
    """What no edit can beat: the true target, coded and decoded by the autoencoder. Each counts as
    ``BOUND_SAMPLES``."""
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
        advance(BOUND_SAMPLES * size)


def _measure(
    model: Pipeline, sweep: Sweep, start: int, numbers: Sequence[int], shared: Shared, first: int
) -> Iterator[Row]:
    """The rows of a batch's tasks of these numbers, inverted from step ``first`` on."""
    for skip, cfg in sweep.settings:
        pictures, taken = edited(model, sweep, skip, cfg, numbers, shared, first)
        rows, scores = keys_of(sweep, start, numbers, skip, cfg), shared.truth.score(pictures, numbers)
        for row, i, measures in zip(rows, numbers, scores):
            kind = shared.truth.tasks[i].kind
            yield {**row, "kind": kind, **measures, "samples": taken.samples, "seconds": taken.seconds}


def edited(
    model: Pipeline, sweep: Sweep, skip: int, cfg: float, numbers: Sequence[int], shared: Shared, first: int
) -> tuple[Tensor, Cost]:
    """Pictures (B, 3, H, W) of a batch's tasks of these numbers at a setting, and what one took.
    Inversion and mask count as if each edit had its own; an inversion's cost is shared out to each
    skip in proportion to the steps that it needs."""
    tasks = [shared.truth.tasks[i] for i in numbers]
    sources, targets = (list(texts) for texts in zip(*(task.captions for task in tasks)))
    mode = replace(sweep.mode, cfg=cfg, cfg_source=sweep.inversion.cfg_source)
    maps, before = shared.maps(sweep.inversion, skip, first, mode)
    with cost(model) as editing:
        goal = directed(model, tasks) if sweep.along else targets
        latents = edited_latent(replace(mode, mask="none"), model, of_items(maps, numbers), sources, goal)
        pictures = decoded(model, latents)
    return pictures, before + editing * (1 / len(tasks))


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
