"""``python -m ddpm_core speed``: what an edit costs in time and memory."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from tqdm import tqdm

from ...models.stable_diffusion import Pipeline
from ...plan import PRESETS, Preset
from ..options import check_device
from .cases import tables
from .random_unet import RANDOM, random_pipeline
from .report import findings, header, table
from .timing import Row, measure

QUICK = {"quality": Preset(10, 4, 3.5, 15.0), "fast": Preset(4, 1, 1.0, 15.0)}


def run(args: argparse.Namespace) -> None:
    """Time an edit side by side: as the authors' code orders the work, as this package does, and
    plain sampling; then by chunk, latent size and batch."""
    from ...demo.model import FOLDER

    check_device(args.device)
    repeat = 1 if args.quick else args.repeat
    if repeat < 1:
        raise ValueError(f"--repeat must be 1 or more rounds; got {repeat}.")
    args.out.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, args.dtype)
    if args.random:
        model = random_pipeline(RANDOM[args.random], args.device, dtype)
    else:
        model = Pipeline.load(FOLDER, args.device, dtype)
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # the one that events and synchronise mean
    cases = tables(model, QUICK if args.quick else PRESETS)
    cases["way"][-1].run()  # what the first calls of all prepare is no way's own
    with tqdm(total=(1 + repeat) * sum(map(len, cases.values())), unit="run") as bar:
        rows = measure(model, cases, repeat, bar)
    name = f"{args.random} with random weights" if args.random else "the demo model"
    parts = [header(model, name, repeat), findings(rows)]
    parts += [f"## By {name}\n\n{table([row for row in rows if row.table == name])}" for name in cases]
    text = "\n\n".join(parts)
    print(text)
    (args.out / "speed.md").write_text(text + "\n", encoding="utf-8")
    with open(args.out / "speed.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([Row._fields, *rows])
    print(f"\nThe result lies in {args.out.resolve()}")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--random",
        choices=list(RANDOM),
        help="instead of the demo model the UNet of this one at its real size, with random weights: for a GPU",
    )
    add(
        "--out",
        type=Path,
        default=Path("out/speed"),
        help="the folder for speed.md and speed.csv (default: %(default)s)",
    )
    add("--repeat", type=int, default=3, help="rounds whose median counts (default: %(default)s)")
    add("--quick", action="store_true", help="few steps and one round, in well under a minute with the demo model")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)")
    add(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        default="float32",
        help="precision of the model (default: %(default)s)",
    )
