"""The work of the command: which edits are missing, made and measured."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...denoise import ran_out_of_memory
from ...inversions.choice import invert_by
from ...maps import NoiseMaps
from ...measure.pictures import load_picture, to_image
from ...models.stable_diffusion import Pipeline
from ...plan import Plan
from ...replay import replay
from ...steps import Solver
from ..options import side_of
from ..tables import mean_over_pairs
from .manifest import Entry
from .metrics import Metric
from .results import COLUMNS, Results


@dataclass
class Work:
    """One run over a manifest: the settings, and what was loaded for them."""

    args: argparse.Namespace
    model: Pipeline
    metrics: Mapping[str, Metric]
    results: Results

    def __post_init__(self):
        """Raises BadArgument, before any work, for settings that do not fit."""
        args = self.args
        self._plan = Plan(self.model.sigmas(args.steps), args.skip, args.eta, Solver(args.solver))

    def edits(self, entry: Entry) -> list[tuple[int, str, str]]:
        """(seed, target prompt, path of the edit) in the order in which they are made: one
        inversion after the other."""
        seeds = range(self.args.seed, self.args.seed + self.args.seeds)
        return [(seed, target, f"edits/{entry.file(target, seed)}") for seed in seeds for target in entry.targets]

    def metrics_of(self, seed: int) -> list[str]:
        """The metrics that a row of this seed shall have."""
        last = seed == self.args.seed + self.args.seeds - 1
        return [*self.metrics, *(["diversity"] if last and self.args.seeds > 1 and "lpips" in self.metrics else [])]

    def unfinished(self, entry: Entry) -> set[str]:
        """The paths of the edits that are not made yet, or lack a metric."""
        rows = self.results.rows
        return {
            path
            for seed, _, path in self.edits(entry)
            if path not in rows or not all(rows[path][name] for name in self.metrics_of(seed))
        }

    def edit_all(self, entries: Sequence[Entry], broken: list[tuple[int, str]]) -> None:
        """Make and measure what is missing; entries that fail are added to ``broken``."""
        paths = {path for entry in entries for _, _, path in self.edits(entry)}
        missing = set().union(*map(self.unfinished, entries))
        with tqdm(total=len(paths), initial=len(paths - missing), unit="edit") as bar:
            for entry in entries:
                if not self.unfinished(entry):
                    continue
                bar.set_description(entry.image.name[:24])
                try:
                    self._edit_one(entry, bar)
                except (ValueError, RuntimeError) as error:
                    if isinstance(error, RuntimeError) and not ran_out_of_memory(error):
                        raise
                    broken.append((entry.line, str(error)))
                    bar.write(f"{self.args.manifest}, line {entry.line}: {error}", file=sys.stderr)
                    bar.total -= len(self.unfinished(entry))
        broken.sort()

    def _edit_one(self, entry: Entry, bar) -> None:
        """All prompts and seeds of one picture, with one inversion for the prompts of a seed."""
        source = read_source(entry, side_of(self.args, self.model), self.model.cell)
        to_image(source[0]).save(self.results.folder / "sources" / entry.source_file)
        unfinished, maps, of_seed = self.unfinished(entry), None, None
        for seed, target, path in self.edits(entry):
            if path not in unfinished:
                continue
            row = self.results.rows.get(path)
            if row is None:
                if of_seed != seed:
                    start = time.perf_counter()
                    maps, of_seed = self._invert(source, entry.source, seed), seed
                    inverting = time.perf_counter() - start
                editing = self._edit(maps, target, path)
                row = dict.fromkeys(COLUMNS, "") | {"image": entry.name, "source_prompt": entry.source}
                row |= {"target_prompt": target, "seed": str(seed), "picture": path}
                row |= {"seconds_inversion": f"{inverting:.4g}", "seconds_edit": f"{editing:.4g}"}
            self._measure(row, entry, source, seed)
            self.results.add(row)
            bar.update()

    def _invert(self, picture: Tensor, prompt: str, seed: int) -> NoiseMaps:
        """The maps of a picture (1, 3, H, W)."""
        args, denoise = self.args, None
        if args.inversion != "sdedit":
            denoise = self.model.denoiser(prompt, guidance=args.cfg_source, negative=args.negative)
        x0 = self.model.encode(picture).to(args.device)
        return invert_by(args.inversion, denoise, x0, replace(self._plan, seed=seed), chunk=args.chunk)

    def _edit(self, maps: NoiseMaps, target: str, path: str) -> float:
        """Write one edit; the seconds that it took without the writing."""
        start = time.perf_counter()
        denoise = self.model.denoiser(target, guidance=self.args.cfg, negative=self.args.negative)
        image = to_image(self.model.decode(replay(denoise, maps, device=self.args.device))[0])
        seconds = time.perf_counter() - start
        image.save(self.results.folder / path)
        return seconds

    def _measure(self, row: dict[str, str], entry: Entry, source: Tensor, seed: int) -> None:
        """Fill in the metrics that a row lacks."""
        edited, target = read_png(self.results.folder / row["picture"]), row["target_prompt"]
        for name, metric in self.metrics.items():
            row[name] = row[name] or f"{metric(source, edited, target):.6g}"
        if "diversity" in self.metrics_of(seed):
            row["diversity"] = f"{self._diversity(entry, target):.6g}"

    def _diversity(self, entry: Entry, target: str) -> float:
        """Mean LPIPS between the edits of a picture and prompt by all seeds."""
        paths = [path for _, prompt, path in self.edits(entry) if prompt == target]
        pictures = [read_png(self.results.folder / path) for path in paths]
        return mean_over_pairs(pictures, lambda one, other: self.metrics["lpips"](one, other, ""))


def read_source(entry: Entry, side: int, cell: int) -> Tensor:
    """The picture of an entry (1, 3, H, W). Raises ValueError for whatever is wrong with the file."""
    try:
        return load_picture(entry.image, side, cell)
    except Exception as error:  # Pillow raises many kinds for foreign files
        raise ValueError(f"init_img {entry.name} cannot be read as a picture: {error}") from error


def read_png(path: Path) -> Tensor:
    """An edit from its file, (1, 3, H, W) in [0, 1]: what is measured is what lies on the disk, in
    this run or a later one."""
    from PIL import Image

    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
