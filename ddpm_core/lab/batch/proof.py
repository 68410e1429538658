"""Proof that nothing is lost: a set of demo pictures goes through one process, through two, and
through Ray, with a worker and the driver killed on the way, and all folders are the same, file by
file (Linux).

    python -m ddpm_core.lab.batch.proof --pictures 200 --out out/proof
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ...demo.scenes import render
from ...measure.pictures import to_image
from ..bench.tasks import random_tasks
from ..tables import markdown
from .scan import entry_text

SMALL = ("--steps", "4", "--skip", "2", "--size", "64", "--device", "cpu")
# {name: (options, what stands in the command line of a worker)}
WAYS = {
    "two processes": (("--workers", "2"), "multiprocessing.spawn"),
    "Ray, two actors": (("--ray", "local", "--workers", "2"), "ray::Hand"),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ddpm_core.lab.batch.proof", description=__doc__.split("\n\n")[0])
    parser.add_argument("--pictures", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/proof"), help="a new folder (default: %(default)s)")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="(default: all)")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True)
    manifest = draw_set(args.out / "set", args.pictures)
    plain, rows = args.out / "plain", []
    started = time.perf_counter()
    with driver(manifest, plain) as running:
        if running.wait():
            raise RuntimeError("the plain run failed.")
    rows.append(("one process", "-", str(len(_files(plain))), "-", f"{time.perf_counter() - started:.0f}"))
    for way in args.ways:
        out, started = args.out / way.replace(" ", "-").replace(",", ""), time.perf_counter()
        killed = _run_killed(manifest, out, args.pictures, *WAYS[way])
        differing = [name for name, data in _files(plain).items() if _files(out).get(name) != data]
        differing += [name for name in _files(out) if name not in _files(plain)]
        seconds = f"{time.perf_counter() - started:.0f}"
        rows.append((way, killed, str(len(_files(out))), ", ".join(differing) or "none", seconds))
    print(markdown(("run", "killed", "files", "files that differ from one process's", "seconds"), rows))
    return int(any(row[3] not in ("-", "none") for row in rows))


def draw_set(folder: Path, count: int) -> Path:
    """Drawn pictures, and the manifest with an edit for each."""
    folder.mkdir(parents=True)
    with (folder / "set.yaml").open("w", encoding="utf-8") as manifest:
        for number, task in enumerate(random_tasks(count, 0)):
            path = folder / f"{number:05}.png"
            to_image(render([task.source])[0]).save(path)
            source, target = task.captions
            manifest.write(entry_text(path.name, source, [target]))
    return folder / "set.yaml"


def driver(manifest: Path, out: Path, *more: str) -> subprocess.Popen:
    """The command, with one thread for each worker, so that all do the same arithmetic."""
    command = [sys.executable, "-m", "ddpm_core", "batch", "--manifest", str(manifest), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *SMALL, *more], env=environment, cwd=Path(__file__).parents[3])


def _run_killed(manifest: Path, out: Path, count: int, options: tuple[str, ...], worker: str) -> str:
    """A run to its end, with a worker killed after a quarter of the edits, and the driver after half of
    them; what was killed at how many edits."""
    notes = []
    with driver(manifest, out, *options) as running:
        for share, who in ((0.25, "a worker"), (0.5, "the driver")):
            while _made(out) < share * count:
                if running.poll() is not None:
                    raise RuntimeError(f"the run ended before {who} was killed.")
                time.sleep(0.05)
            victims = (
                [running.pid] if who == "the driver" else [pid for pid, line in _below(running.pid) if worker in line]
            )
            os.kill(victims[0], signal.SIGKILL)
            notes.append(f"{who} at {_made(out)}")
    with driver(manifest, out, *options) as running:
        if running.wait():
            raise RuntimeError("the second run failed.")
    return ", ".join(notes)


def _made(out: Path) -> int:
    try:
        return (out / "results.csv").read_bytes().count(b"\n") - 1
    except FileNotFoundError:
        return 0


def _below(pid: int) -> Iterator[tuple[int, str]]:
    """(pid, command line) of the processes that a process started, and those that they started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            line = path.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        if parent == pid:
            yield int(path.parent.name), line
            yield from _below(int(path.parent.name))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    sys.exit(main())
