"""``python -m ddpm_core evaluate``: edits every picture of a manifest by every prompt, and measures
the edits (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 4 and table 1)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ...inversions.choice import INVERSIONS
from ...steps import Solver
from ..batch.command import add_set_options, notes, read_entries, resumable, runner_of
from ..batch.command import settings_of as settings_of_edits
from ..batch.drive import Errors, ask, edit_all, paths_of, seeds_of
from ..batch.folder import Folder
from ..batch.manifest import Entry
from ..batch.sheet import sheet
from ..options import fill_in
from .measure import COLUMNS, Available, Measuring, measure_all
from .report import report, summaries
from .sheet import cells, head


def settings_of(args: argparse.Namespace) -> dict:
    """All that is said of a run, as JSON has it; guidance that the inversion does not read
    is None. Raises ValueError for settings that do not fit."""
    if args.inversion in ("ddim", "sdedit") and args.solver != Solver.FIRST_ORDER.value:
        only = Solver.FIRST_ORDER.value
        raise ValueError(f"--inversion {args.inversion} has --solver {only} only; got {args.solver}.")
    if args.inversion == "ddim" and args.seeds > 1:
        reason = "--inversion ddim draws no noise, every seed gives the same edit"
        raise ValueError(f"{reason}: --seeds must be 1; got {args.seeds}.")
    return {
        **settings_of_edits(args),
        "inversion": args.inversion,
        "cfg_source": None if args.inversion == "sdedit" else args.cfg_source,
        "eta": 0.0 if args.inversion == "ddim" else args.eta,
        "clip": args.clip,
    }


def run(args: argparse.Namespace) -> None:
    """Edit every picture of a manifest by every target prompt, measure the edits, and write a
    table, a report and a browsable sheet."""
    fill_in(args)
    settings = settings_of(args)
    entries, errors = read_entries(args)
    rows, missing = [], {}
    with resumable(args.out), Folder(args.out, settings, COLUMNS) as folder:
        try:
            with runner_of(args, Measuring) as runner:
                available = ask(runner, Available())
                missing.update(available["missing"])
                for what in missing.values():
                    print(f"Left out: {what}", file=sys.stderr)
                if args.seeds == 1 or "lpips" in missing:
                    reason = "Diversity needs LPIPS." if args.seeds > 1 else "Diversity needs --seeds 2 or more."
                    missing["diversity"] = reason
                edit_all(args, entries, folder, runner, errors)
                measure_all(args, entries, folder, runner, available["metrics"], errors)
        finally:
            rows += write_documents(args, entries, folder, missing, errors, settings)
    if not rows:
        raise ValueError(f"no edit could be made; see {args.out / 'report.md'} for what was wrong with each entry.")
    for label, mean, error, *_ in summaries(rows):
        print(f"{label:<18} {mean:>8} +- {error}")
    print(f"{len(rows)} edits: {args.out / 'results.csv'}, {args.out / 'report.md'}, {args.out / 'index.html'}")


def write_documents(
    args: argparse.Namespace,
    entries: Sequence[Entry],
    folder: Folder,
    missing: dict[str, str],
    errors: Errors,
    settings: dict,
) -> list[dict[str, str]]:
    """errors.csv, report.md and index.html, from the rows that there are, and the table in the
    manifest's order; these rows, each once."""
    paths_by = {entry: paths_of(entry, seeds_of(args)) for entry in entries}
    planned = {path: None for paths in paths_by.values() for path in paths}
    folder.table.arrange(planned)
    folder.write_errors(errors)
    kept = {row["picture"]: row for row in folder.rows()}
    rows_of = [(entry, [kept[path] for path in paths if path in kept]) for entry, paths in paths_by.items()]
    rows = [kept[path] for path in planned if path in kept]
    lists = [*([("Missing", list(missing.values()))] if missing else []), *notes(errors, settings)]
    page = sheet("Evaluation", head(rows, settings), rows_of, lists, cells)
    (folder.path / "report.md").write_text(report(rows, len(planned), lists), encoding="utf-8")
    (folder.path / "index.html").write_text(page, encoding="utf-8")
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    add_set_options(parser, "out/evaluate")
    add = parser.add_argument
    add(
        "--inversion",
        choices=INVERSIONS,
        help="ddim has eta 0; sdedit reads no source prompt, its strength is 1 - skip / steps; turbo is for few-step "
        f"models (default: {INVERSIONS[0]}; turbo with --preset turbo)",
    )
    add(
        "--clip",
        default="openai/clip-vit-base-patch32",
        help="CLIP of the score: a folder of a transformers model, or its name on the hub (default: %(default)s)",
    )
