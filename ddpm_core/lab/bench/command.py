"""``python -m ddpm_core bench``: run every measurement on the demo model, and write the report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from ...demo.model import FOLDER
from ...demo.scenes import random_scenes
from ...measure.pictures import labelled_grid
from ...measure.plots import statistics_figure
from ...models.stable_diffusion import Pipeline
from ..store import Store, keep_settings
from . import edits, paper, plots, report
from .edits import Batches, Sweep
from .methods import edit
from .points import SETTING, Point, best, of_method, points_of
from .settings import QUICK, SEED, SERIES, SWEEPS, VERSION, Size
from .tables import settings_csv
from .tasks import random_tasks


def run(args: argparse.Namespace) -> None:
    """Compare edit-friendly maps with native maps, DDIM inversion and SDEdit on drawn scenes, whose
    true edits are known."""
    import kornia.metrics  # noqa: F401, here rather than after an hour
    import matplotlib.figure  # noqa: F401

    size = QUICK if args.quick else Size()
    count = size.scenes if args.scenes is None else args.scenes
    if count < 4:
        raise ValueError(f"--scenes must be 4 or more, one for every kind of edit; got {count}.")
    size = replace(size, scenes=count, stepped=min(count, size.stepped), seeded=min(count, size.seeded))
    keep_settings(args.out, {**asdict(size), "seed": SEED, "version": VERSION})
    bench = Bench(Pipeline.load(FOLDER), size, args.out, quick=args.quick)
    bench.measure()
    bench.write()
    print(f"The report lies in {(args.out / 'report.md').resolve()}")


class Bench:
    """The measurements and their folder; stopped at any time, they go on where they were."""

    def __init__(self, model: Pipeline, size: Size, out: Path, *, quick: bool = False):
        self.model, self.size, self.out = model, size, out
        self.batches = Batches(model, random_tasks(size.scenes, SEED))
        self.drawings = random_scenes(size.drawings, SEED + 1)
        self.sweeps = [Sweep(s.inversion, s.skips[:1], s.cfgs[:1]) for s in SWEEPS] if quick else SWEEPS
        self.series = {name: sweeps[:1] if quick else sweeps for name, sweeps in SERIES.items()}
        self.edits = Store(out / "edits.csv", edits.KEY, edits.COLUMNS)
        self.steps = Store(out / "steps.csv", edits.KEY, edits.COLUMNS)
        self.seeds = Store(out / "seeds.csv", edits.KEY, edits.SEEDS_COLUMNS)
        self.shifts = Store(out / "shifts.csv", paper.SHIFT_KEY, paper.SHIFT_MEASURES)
        self.colors = Store(out / "colors.csv", paper.COLOR_KEY, paper.COLOR_MEASURES)
        self.maps = Store(out / "statistics.csv", paper.MAPS_KEY, paper.MAPS_MEASURES)

    def measure(self) -> None:
        """All that the folder does not hold yet."""
        size, stepped = self.size, [sweep for sweeps in self.series.values() for sweep in sweeps]
        paper.measure_maps(self.model, self.drawings[:8], size.steps, self.maps)
        with progress("shifts", size.drawings) as advance:
            paper.measure_shifts(self.model, self.drawings, self.shifts, advance)
        with progress("colours", size.drawings) as advance:
            paper.measure_colors(self.model, self.drawings, self.colors, advance)
        with progress("steps", size.stepped * sum(sweep.samples for sweep in stepped)) as advance:
            edits.run(self.model, self.batches, stepped, self.steps, size.stepped, advance)
        with progress("edits", size.scenes * (20 + sum(sweep.samples for sweep in self.sweeps))) as advance:
            edits.run_bound(self.model, self.batches, self.edits, advance)
            edits.run(self.model, self.batches, self.sweeps, self.edits, size.scenes, advance)
        settings = [
            (sweep.inversion, int(top.setting["skip"]), float(top.setting["cfg"]))
            for sweep, top in zip(self.sweeps, self.chosen())
        ]
        samples = sum(Sweep(inversion, (skip,), (cfg,)).samples for inversion, skip, cfg in settings)
        with progress("seeds", (size.seeds + 1) * size.seeded * samples) as advance:
            edits.run_seeds(self.model, self.batches, settings, self.seeds, size.seeded, size.seeds, advance)

    def points(self) -> list[Point]:
        """Every setting of the sweep."""
        return [point for sweep in self.sweeps for point in points_of_sweep(self.edits, sweep)]

    def chosen(self) -> list[Point]:
        """The best setting of every sweep."""
        points = self.points()
        return [best(of_method(points, sweep.inversion.name)) for sweep in self.sweeps]

    def write(self) -> None:
        """The plots, the contact sheet and the report, from what was measured."""
        points, chosen, out = self.points(), self.chosen(), self.out
        (bound,) = of_method(points_of(self.edits.rows), edits.BOUND)
        self.contact_sheet(chosen).save(out / "contact.png")
        series = {
            name: [points_of_sweep(self.steps, sweep) for sweep in sweeps] for name, sweeps in self.series.items()
        }
        level = best(next(iter(series.values()))[-1]).mean["kept_psnr"]
        statistics = paper.statistics_of(self.maps.rows)
        degrees = {name: paper.toy_angles(maps) for name, maps in paper.toy().items()}
        figures = {
            "tradeoff": plots.tradeoff_figure(points, bound.mean["kept_psnr"]),
            "steps": plots.steps_figure(series, level),
            "shifts": plots.shift_figure(self.shifts.rows),
            "colors": plots.color_figure(self.colors.rows),
            "statistics": statistics_figure(statistics),
            "toy": plots.toy_figure(degrees),
        }
        for name, figure in figures.items():
            figure.savefig(out / f"{name}.png")
        (out / "settings.csv").write_text(settings_csv([bound, *points]), "utf-8")
        parts = [
            *report.edits_part(self.size, self.edits.rows, chosen, points, bound, self.seed_rows(chosen)),
            *report.steps_part(self.size, series, level),
            *report.shifts_part(self.size, self.shifts.rows),
            *report.colors_part(self.size, self.colors.rows),
            *report.maps_part(statistics, degrees),
            *report.settings_part(points),
        ]
        (out / "report.md").write_text("\n".join(parts) + "\n", "utf-8")

    def seed_rows(self, chosen: Sequence[Point]) -> dict[str, list[dict]]:
        """What several seeds gave at each method's best setting, by method."""
        return {
            str(point.setting["name"]): self.seeds.select(**{name: point.setting[name] for name in SETTING})
            for point in chosen
        }

    def contact_sheet(self, chosen: Sequence[Point]):
        """The first scenes under every method at its best setting, as a ``PIL.Image``."""
        rows = []
        for start in self.batches.starts(self.size.shown):
            truth, x0 = self.batches.get(start)
            sources, targets = zip(*(task.captions for task in truth.tasks))
            columns = [("source", truth.sources), ("true target", truth.targets)]
            for sweep, top in zip(self.sweeps, chosen):
                maps = sweep.inversion.run(self.model, x0, sources, skip=int(top.setting["skip"]))
                pictures = edit(self.model, maps, targets, float(top.setting["cfg"]))
                columns.append((sweep.inversion.name.replace(", ", "\n"), pictures))
            rows += [[(name, pictures[i]) for name, pictures in columns] for i in range(len(truth.tasks))]
        rows = rows[: self.size.shown]
        unlabelled = [[("", picture) for _, picture in row] for row in rows[:-1]]
        return labelled_grid([*unlabelled, rows[-1]], 160)


def points_of_sweep(store: Store, sweep: Sweep) -> list[Point]:
    """The points of every setting of a sweep, in its order."""
    points = []
    for skip, cfg in sweep.settings:
        (key,) = edits.keys(0, 1, sweep.inversion, skip, cfg)
        points += points_of(store.select(**{name: key[name] for name in SETTING}))
    return points


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with the remaining time; what was measured before passes in a moment."""
    with tqdm(total=total, desc=name, unit="sample", smoothing=0.05) as bar:
        yield bar.update


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/bench"),
        help="the folder of the report; a run that was stopped goes on there (default: %(default)s)",
    )
    parser.add_argument("--scenes", type=int, help="edits to measure (default: 200, with --quick 8)")
    parser.add_argument("--quick", action="store_true", help="a few scenes and settings, in some minutes")
