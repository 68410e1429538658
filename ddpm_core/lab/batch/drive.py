"""The driver: finds what is missing, has it done, and writes the table, alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tqdm import tqdm

from .folder import Folder
from .jobs import Failure, Job, Outline
from .manifest import Entry

Errors = dict[tuple[int | None, str], None]  # (line of the manifest, what is wrong), each once


class Progress(tqdm):
    """A progress bar with pictures a minute."""

    def __init__(self, **options):
        bar = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, {a_minute} a minute, {remaining} left"
        super().__init__(bar_format=bar, **options)

    @property
    def format_dict(self) -> dict:
        known = super().format_dict
        rate = known["rate"] or (known["n"] - known["initial"]) / max(known["elapsed"], 1e-9)
        return {**known, "a_minute": f"{60 * rate:.3g}"}


def paths_of(entry: Entry, seeds: Iterable[int]) -> dict[str, tuple[int, str]]:
    """{path of the edit: (seed, target prompt)} in the order in which they are made: one inversion
    after the other."""
    return {f"edits/{entry.file(target, seed)}": (seed, target) for seed in seeds for target in entry.targets}


def seeds_of(args: argparse.Namespace) -> range:
    return range(args.seed, args.seed + args.seeds)


def ask(runner, question) -> dict:
    """What a worker answers. Raises ValueError."""
    ((_, told),) = runner.run([question])
    if isinstance(told, Failure):
        raise ValueError(told.what)
    return told


def edit_all(args: argparse.Namespace, entries: Sequence[Entry], folder: Folder, runner, errors: Errors) -> None:
    """Make what is missing, each edit once; what fails is noted in ``errors``."""
    made, planned, missing = folder.made(), set(), []
    for entry in entries:
        lacking: dict[int, list[str]] = {}
        for path, (seed, target) in paths_of(entry, seeds_of(args)).items():
            if path not in planned and path not in made:
                lacking.setdefault(seed, []).append(target)
            planned.add(path)
        missing += [(entry, seed, tuple(targets)) for seed, targets in lacking.items()]
    count = sum(len(targets) for *_, targets in missing)
    if not missing:
        return
    outline = ask(runner, Outline())
    plans = {seed: replace(outline["plan"], seed=seed) for seed in seeds_of(args)}
    jobs = (Job(entry, targets, plans[seed], outline["mode"]) for entry, seed, targets in missing)
    with Progress(total=len(planned), initial=len(planned) - count, desc="editing") as bar:
        work_off(runner, jobs, folder, errors, bar, args)


def work_off(runner, jobs: Iterable, folder: Folder, errors: Errors, bar, args: argparse.Namespace) -> None:
    """Put the rows of jobs into the folder's table as they come; what fails is noted in ``errors``."""
    for job, row in runner.run(jobs):
        if isinstance(row, Failure):
            note(errors, job, row, bar, args)
        else:
            folder.table.append([row])
            bar.update()


def note(errors: Errors, job, failure: Failure, bar, args: argparse.Namespace) -> None:
    """Keep what went wrong with a picture, and say it once."""
    known = (job.entry.line, failure.what)
    if known not in errors:
        errors[known] = None
        bar.write(f"{args.manifest}, line {job.entry.line}: {failure.what}", file=sys.stderr)
    bar.total -= failure.lacking
