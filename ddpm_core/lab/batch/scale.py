"""What a long run costs beside the model: the driver with jobs that take no time, a table of a million
rows, and the demo model on twice the pictures and twice the workers (Linux).

    python -m ddpm_core.lab.batch.scale

Seconds are those of the processor, which other programs on the machine do not lengthen.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from ...plan import Plan
from ..editing import Mode
from ..tables import markdown
from .drive import edit_all
from .folder import COLUMNS, Folder
from .jobs import Job, Outline
from .local import Here, Processes
from .manifest import Entry, read_manifest
from .proof import draw_set, driver
from .scan import entry_text

PROMPTS = "a striped red star on a blue background", "a striped green star on a blue background"
OPTIONS = argparse.Namespace(manifest=Path("set.yaml"), seed=0, seeds=1, device="cpu")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ddpm_core.lab.batch.scale", description=__doc__.split("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=100_000, help="for the driver alone (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the long table (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=100, help="for the model (default: %(default)s and twice that)")
    args = parser.parse_args(arguments)
    rows = [
        ("in the driver's process", *driver_alone(args.jobs, Here(Nobody(OPTIONS)))),
        ("in one process beside it", *driver_alone(args.jobs, Processes(Nobody, OPTIONS, 1))),
        ("in two", *driver_alone(args.jobs, Processes(Nobody, OPTIONS, 2))),
    ]
    head = ("jobs that take no time", "jobs", "rows a second", "MB at the first row", "MB at the last")
    print(f"{markdown(head, rows)}\n")
    print(f"{markdown(('a long table', 'rows', 'seconds'), long_table(args.rows))}\n")
    counts = [(pictures, workers) for workers in (1, 2) for pictures in (args.pictures, 2 * args.pictures)]
    print(markdown(("pictures, demo model", "workers", "seconds, all processes"), list(pictures_by(counts))))
    return 0


class Nobody:
    """A worker without a model."""

    def __init__(self, args: argparse.Namespace):
        pass


@dataclass(frozen=True)
class Nothing:
    """A job whose edits are not made."""

    job: Job

    @property
    def size(self) -> int:
        return self.job.size

    def do(self, worker: Nobody) -> Iterator[dict]:
        entry, seed = self.job.entry, self.job.plan.seed
        for target in self.job.targets:
            yield row_of(entry, target, seed)


class Idle:
    """A runner of nothing; notes the memory of this process at its first and its last row."""

    def __init__(self, runner):
        self.runner, self.memory = runner, []

    def run(self, jobs: Iterable) -> Iterator[tuple]:
        (first,) = jobs if isinstance(jobs, list) else (None,)
        if isinstance(first, Outline):
            yield first, {"plan": Plan([10 * 0.9**i for i in range(100)]), "mode": Mode(cfg=3.0)}
            return
        for nothing, row in self.runner.run(Nothing(job) for job in jobs):
            if not self.memory:
                self.memory.append(megabytes())
            yield nothing.job, row
        self.memory.append(megabytes())


def driver_alone(count: int, runner) -> tuple[str, ...]:
    """(jobs, rows a second of the driver's own time, megabytes at the first and at the last row)"""
    with TemporaryDirectory() as folder, Folder(Path(folder), {}) as out, runner:
        idle, entries = Idle(runner), [entry_of(number) for number in range(count)]
        started = time.process_time()
        edit_all(OPTIONS, entries, out, idle, {})
        seconds = time.process_time() - started
        assert sum(1 for _ in out.table) == count
    return str(count), f"{count / seconds:.0f}", *(f"{value:.0f}" for value in idle.memory)


def long_table(count: int) -> list[tuple[str, ...]]:
    """(what, rows, seconds) of what a run does with a table of ``count`` rows, all with a picture."""
    with TemporaryDirectory() as name:
        with Folder(Path(name), {}) as out:
            paths = []
            for start in range(0, count, 10_000):
                entries = [entry_of(number) for number in range(start, min(count, start + 10_000))]
                rows = [row_of(entry, PROMPTS[1], 0) for entry in entries]
                out.table.append(rows)
                paths += [row["picture"] for row in rows]
            for path in paths:
                (out.path / path).touch()
        times = [("opened, what is there found", str(count), *timed(lambda: reopened(name, count)))]
        with Folder(Path(name), {}) as out:
            times.append(("put in order", str(count), *timed(lambda: out.table.arrange(reversed(paths)))))
        some = min(count, 10_000)
        picture = Path(name) / "a.png"
        picture.write_bytes(b"x" * 100_000)
        manifest = Path(name) / "set.yaml"
        manifest.write_text("".join(entry_text(picture.name, PROMPTS[0], [PROMPTS[1]]) for _ in range(some)))
        times.append(("manifest of pictures of 100 kB", str(some), *timed(lambda: read_manifest(manifest))))
    return times


def reopened(name: str, count: int) -> None:
    with Folder(Path(name), {}) as out:
        assert len(out.made()) == count


def pictures_by(counts: Iterable[tuple[int, int]]) -> Iterator[tuple[str, ...]]:
    """(pictures, workers, seconds) of whole runs of the command."""
    for pictures, workers in counts:
        with TemporaryDirectory() as name:
            manifest = draw_set(Path(name) / "set", pictures)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            with driver(manifest, Path(name) / "out", "--workers", str(workers)) as running:
                if running.wait():
                    raise RuntimeError("the run failed.")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        yield str(pictures), str(workers), f"{seconds:.1f}"


def entry_of(number: int) -> Entry:
    name = f"{number:08}.png"
    return Entry(number + 1, name, Path(name), sha256(name.encode()).hexdigest(), PROMPTS[0], (PROMPTS[1],))


def row_of(entry: Entry, target: str, seed: int) -> dict[str, str]:
    cells = entry.name, entry.source, target, str(seed), f"edits/{entry.file(target, seed)}"
    return dict(zip(COLUMNS, cells))


def timed(work) -> tuple[str]:
    started = time.process_time()
    work()
    return (f"{time.process_time() - started:.1f}",)


def megabytes() -> float:
    """Of this process, in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())
