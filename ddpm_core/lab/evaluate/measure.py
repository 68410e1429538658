"""The second half of the command: jobs that measure the edits of a picture."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..batch.drive import Errors, Progress, paths_of, seeds_of, work_off
from ..batch.folder import Folder
from ..batch.jobs import Worker, read_png
from ..batch.manifest import Entry
from ..options import check_device
from ..tables import mean_over_pairs
from .metrics import METRICS, Metric, load_metrics

COLUMNS = ("image", "source_prompt", "target_prompt", "seed", *METRICS, "picture")


class Measuring(Worker):
    """A worker with metrics; ``missing`` says why others are not there."""

    @cached_property
    def _loaded(self) -> tuple[dict[str, Metric], dict[str, str]]:
        check_device(self.args.device)
        return load_metrics(self.args.clip, self.args.device)

    @property
    def metrics(self) -> dict[str, Metric]:
        return self._loaded[0]

    @property
    def missing(self) -> dict[str, str]:
        return self._loaded[1]


@dataclass(frozen=True)
class Available:
    """The question which metrics there are."""

    size = 1

    def do(self, worker: Measuring) -> Iterator[dict]:
        yield {"metrics": list(worker.metrics), "missing": worker.missing}


@dataclass(frozen=True)
class Measure:
    """Fills in what rows of one picture lack.

    rows   with the names of what each lacks
    paths  of all edits of the picture, with seed and prompt: what the diversity is between
    """

    entry: Entry
    rows: tuple[tuple[dict[str, str], tuple[str, ...]], ...]
    paths: Mapping[str, tuple[int, str]]

    @property
    def size(self) -> int:
        return len(self.rows)

    def do(self, worker: Measuring) -> Iterator[dict]:
        source = worker.source(self.entry)
        for row, names in self.rows:
            edited, target = read_png(worker.folder / row["picture"]), row["target_prompt"]
            values = {
                name: self._diversity(worker, target)
                if name == "diversity"
                else worker.metrics[name](source, edited, target)
                for name in names
            }
            yield {**row, **{name: f"{value:.6g}" for name, value in values.items()}}

    def _diversity(self, worker: Measuring, target: str) -> float:
        """Mean LPIPS between the edits of a picture and prompt by all seeds."""
        pictures = [read_png(worker.folder / path) for path, (_, prompt) in self.paths.items() if prompt == target]
        return mean_over_pairs(pictures, lambda one, other: worker.metrics["lpips"](one, other, ""))


def measure_all(
    args: argparse.Namespace,
    entries: Sequence[Entry],
    folder: Folder,
    runner,
    metrics: Sequence[str],
    errors: Errors,
) -> None:
    """Measure what is made and lacks a metric; a changed row is written behind the one that it
    replaces."""
    rows = {row["picture"]: row for row in folder.rows()}
    there, last, jobs = set(rows), seeds_of(args)[-1], []
    for entry in entries:
        paths, lacking = paths_of(entry, seeds_of(args)), []
        for path, (seed, target) in paths.items():
            row = rows.pop(path, None)  # entries with the same edits: once
            if row is None:
                continue
            names = [*metrics]
            if seed == last and args.seeds > 1 and "lpips" in metrics:
                complete = all(other in there for other, (_, prompt) in paths.items() if prompt == target)
                names += ["diversity"] * complete
            names = tuple(name for name in names if not row[name])
            if names:
                lacking.append((row, names))
        if lacking:
            jobs.append(Measure(entry, tuple(lacking), paths))
    if not jobs:
        return
    with Progress(total=sum(job.size for job in jobs), desc="measuring") as bar:
        work_off(runner, jobs, folder, errors, bar, args)
