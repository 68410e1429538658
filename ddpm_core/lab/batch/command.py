"""``python -m ddpm_core batch``: edits every picture of a manifest by every prompt, with one process
or many."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..editing import Mode, add_edit_options
from ..options import add_inversion_options, add_model_options, fill_in
from .drive import Errors, edit_all, paths_of, seeds_of
from .folder import Folder, in_order
from .jobs import Worker
from .local import Here, Processes
from .manifest import Entry, read_manifest
from .sheet import sheet


def run(args: argparse.Namespace) -> None:
    """Edit every picture of a manifest by every target prompt, with one inversion for all prompts of
    a picture and seed."""
    fill_in(args)
    settings = settings_of(args)
    entries, errors = read_entries(args)
    with resumable(args.out), Folder(args.out, settings) as folder:
        try:
            with runner_of(args, Worker) as runner:
                edit_all(args, entries, folder, runner, errors)
        finally:
            made, planned = write_documents(args, entries, folder, errors, settings)
    if not made:
        raise ValueError(f"no edit could be made; see {args.out / 'errors.csv'} for what was wrong with each entry.")
    print(f"{made} of {planned} edits: {args.out / 'edits'}, {args.out / 'results.csv'}, {args.out / 'index.html'}")


def settings_of(args: argparse.Namespace) -> dict:
    """All that is said of a run's edits, as JSON has it. Raises ValueError for settings that do not
    fit."""
    for name in ("seeds", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be 1 or more; got {value}.")
    return {
        "manifest": str(args.manifest.resolve()),
        "model": str(args.model.resolve()) if args.model else "the demo model",
        "config": str(args.config.resolve()) if args.config else None,
        "steps": args.steps,
        "skip": args.skip,
        "eta": args.eta,
        "solver": args.solver,
        "seed": args.seed,
        "seeds": args.seeds,
        "chunk": args.chunk,
        "size": args.size,
        "device": args.device,
        "dtype": args.dtype,
        **Mode.of(args).settings(),
        **({"inversion": args.inversion, "cap": args.cap} if args.inversion == "turbo" else {}),
    }


def read_entries(args: argparse.Namespace) -> tuple[list[Entry], Errors]:
    """The manifest's entries, and what is wrong with others, which is said."""
    entries, broken, unknown = read_manifest(args.manifest)
    for line, what in broken:
        print(f"{args.manifest}, line {line}: {what}", file=sys.stderr)
    if unknown:
        print(f"Keys of the manifest that nothing reads: {', '.join(unknown)}", file=sys.stderr)
    return entries, dict.fromkeys(broken)


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Say how to go on after an interruption, or on a full disk."""
    hint = f"start the same command again to go on from here. What there is lies in {out}."
    try:
        yield
    except KeyboardInterrupt:
        raise ValueError(f"interrupted; {hint}") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(f"the disk is full ({error}): make room, and {hint}") from error


def runner_of(args: argparse.Namespace, kind: type[Worker]):
    """What does the jobs: this process, --workers of them, or --ray."""
    if args.ray:
        from .on_ray import OnRay

        return OnRay(kind, args, args.ray, args.workers)
    if args.workers and args.workers > 1:
        return Processes(kind, args, args.workers)
    return Here(kind(args))


def write_documents(
    args: argparse.Namespace, entries: Sequence[Entry], folder: Folder, errors: Errors, settings: dict
) -> tuple[int, int]:
    """errors.csv and index.html, and the table in the manifest's order; how many edits there are, and
    how many there shall be."""
    made, planned = folder.made(), {}
    for entry in entries:
        planned.update(paths_of(entry, seeds_of(args)))
    folder.table.arrange(planned)
    folder.write_errors(errors)
    rows_of = (
        (
            entry,
            [
                {"picture": path, "seed": str(seed), "target_prompt": target}
                for path, (seed, target) in paths_of(entry, seeds_of(args)).items()
                if path in made
            ],
        )
        for entry in entries
    )
    count = len(made & planned.keys())
    head = f"<p>{count} of {len(planned)} edits.</p>"
    (folder.path / "index.html").write_text(sheet("Edits", head, rows_of, notes(errors, settings)), encoding="utf-8")
    return count, len(planned)


def notes(errors: Errors, settings: dict) -> list[tuple[str, list[str]]]:
    """What stands at the end of a report: titles and lists; only what there is."""
    parts = {
        "Broken entries": [f"line {line}: {' '.join(what.split())}" for line, what in in_order(errors)],
        "Settings": [f"{name}: {'-' if value is None else value}" for name, value in settings.items()],
    }
    return [(title, items) for title, items in parts.items() if items]


def add_set_options(parser: argparse.ArgumentParser, out: str) -> None:
    """--manifest, --out, --seeds and how to share the work: what ``batch`` and ``evaluate`` have
    beyond ``edit``."""
    parser.epilog = (
        "Started again with the same settings it goes on where it stopped. Broken entries are listed and left out; "
        "the exit code is 0 if there is at least one edit, else 1."
    )
    add = parser.add_argument
    add(
        "--manifest",
        type=Path,
        required=True,
        help="a YAML list of entries with init_img, source_prompt and target_prompts, as the authors' test.yaml",
    )
    add("--out", type=Path, default=Path(out), help="the folder to write (default: %(default)s)")
    add("--seeds", type=int, default=1, help="seeds a picture, from --seed on (default: %(default)s)")
    add(
        "--workers",
        type=int,
        help="processes on this machine: a GPU each, or on a CPU its threads shared out; with --ray: actors "
        "(default: 1; with --ray one a GPU, or one a CPU)",
    )
    add(
        "--ray",
        metavar="ADDRESS",
        help="work on a Ray cluster: its address, auto for the one that this machine belongs to, local for one on "
        "this machine alone; all its machines see the pictures, the model and --out under the same paths",
    )
    add_model_options(parser)
    add_inversion_options(parser)
    add_edit_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_set_options(parser, "out/batch")
