"""``python -m ddpm_core evaluate``: edits every picture of a manifest by every prompt, and measures
the edits (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 4 and table 1)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...inversions.choice import INVERSIONS
from ...steps import Solver
from ..options import add_inversion_options, add_model_options, check_device, fill_in, load_model
from .manifest import Entry, read_manifest
from .metrics import load_metrics
from .report import report, summaries
from .results import Results
from .sheet import sheet
from .work import Work


def settings_of(args: argparse.Namespace) -> dict:
    """All that is said of a run, as JSON has it; guidance that the inversion does not read
    is None. Raises ValueError for settings that do not fit."""
    if args.inversion in ("ddim", "sdedit") and args.solver != Solver.FIRST_ORDER.value:
        only = Solver.FIRST_ORDER.value
        raise ValueError(f"--inversion {args.inversion} has --solver {only} only; got {args.solver}.")
    if args.chunk < 1:
        raise ValueError(f"--chunk must be 1 or more timesteps a call; got {args.chunk}.")
    if args.seeds < 1:
        raise ValueError(f"--seeds must be 1 or more; got {args.seeds}.")
    if args.inversion == "ddim" and args.seeds > 1:
        reason = "--inversion ddim draws no noise, every seed gives the same edit"
        raise ValueError(f"{reason}: --seeds must be 1; got {args.seeds}.")
    return {
        "manifest": str(args.manifest.resolve()),
        "model": str(args.model.resolve()) if args.model else "the demo model",
        "config": str(args.config.resolve()) if args.config else None,
        "inversion": args.inversion,
        "steps": args.steps,
        "skip": args.skip,
        "cfg": args.cfg,
        "cfg_source": None if args.inversion == "sdedit" else args.cfg_source,
        "negative": args.negative,
        "eta": 0.0 if args.inversion == "ddim" else args.eta,
        "solver": args.solver,
        "seed": args.seed,
        "seeds": args.seeds,
        "chunk": args.chunk,
        "size": args.size,
        "device": args.device,
        "dtype": args.dtype,
        "clip": args.clip,
    }


def run(args: argparse.Namespace) -> None:
    """Edit every picture of a manifest by every target prompt, measure the edits, and write a
    table, a report and a browsable sheet."""
    check_device(args.device)
    fill_in(args)
    settings = settings_of(args)
    entries, broken, unknown = read_manifest(args.manifest)
    results = Results(args.out, settings)
    for line, what in broken:
        print(f"{args.manifest}, line {line}: {what}", file=sys.stderr)
    if unknown:
        print(f"Keys of the manifest that nothing reads: {', '.join(unknown)}", file=sys.stderr)
    metrics, missing = load_metrics(args.clip, args.device)
    for what in missing.values():
        print(f"Left out: {what}", file=sys.stderr)
    if args.seeds == 1 or "lpips" in missing:
        missing["diversity"] = "Diversity needs --seeds 2 or more." if args.seeds == 1 else "Diversity needs LPIPS."
    work = Work(args, load_model(args), metrics, results)
    try:
        work.edit_all(entries, broken)
    except KeyboardInterrupt:
        hint = f"start the same command again to go on from here. What there is lies in {args.out}."
        raise ValueError(f"interrupted; {hint}") from None
    finally:
        rows = write_documents(work, entries, missing, broken, settings)
    if not rows:
        raise ValueError(f"no edit could be made; see {args.out / 'report.md'} for what was wrong with each entry.")
    for label, mean, error, *_ in summaries(rows):
        print(f"{label:<18} {mean:>8} +- {error}")
    print(f"{len(rows)} edits: {args.out / 'results.csv'}, {args.out / 'report.md'}, {args.out / 'index.html'}")


def write_documents(
    work: Work, entries: Sequence[Entry], missing: dict[str, str], broken: list[tuple[int, str]], settings: dict
) -> list[dict[str, str]]:
    """report.md and index.html, from the rows that there are; these rows, each once."""
    kept, paths_of = work.results.rows, {entry: [path for *_, path in work.edits(entry)] for entry in entries}
    rows_of = {entry: [kept[path] for path in paths if path in kept] for entry, paths in paths_of.items()}
    rows = list({row["picture"]: row for of_entry in rows_of.values() for row in of_entry}.values())
    planned = len({path for paths in paths_of.values() for path in paths})
    folder = work.results.folder
    (folder / "report.md").write_text(report(rows, planned, missing, broken, settings), encoding="utf-8")
    (folder / "index.html").write_text(sheet(rows_of, rows, missing, broken, settings), encoding="utf-8")
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
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
    add("--out", type=Path, default=Path("out/evaluate"), help="the folder to write (default: %(default)s)")
    add(
        "--inversion",
        choices=INVERSIONS,
        default=INVERSIONS[0],
        help="ddim has eta 0; sdedit reads no source prompt, its strength is 1 - skip / steps (default: %(default)s)",
    )
    add(
        "--seeds",
        type=int,
        default=1,
        help="seeds a picture, from --seed on; 2 or more give the diversity (default: %(default)s)",
    )
    add(
        "--clip",
        default="openai/clip-vit-base-patch32",
        help="CLIP of the score: a folder of a transformers model, or its name on the hub (default: %(default)s)",
    )
    add_model_options(parser)
    add_inversion_options(parser)
