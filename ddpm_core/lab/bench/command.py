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
from . import edits, pairs, paper, plots, report
from .edits import BOUND_SAMPLES, Batches, Sweep
from .pairs import random_pairs
from .points import SETTING, Point, best, of_method, points_of
from .settings import QUICK, RIVALS, SEED, SERIES, SWEEPS, VERSION, WAYS, Size
from .tables import settings_csv
from .tasks import KINDS, random_tasks


def run(args: argparse.Namespace) -> None:
    """Compare edit-friendly maps with native maps, DDIM inversion and SDEdit on drawn scenes, whose
    true edits are known."""
    import kornia.metrics  # noqa: F401, here rather than after an hour
    import matplotlib.figure  # noqa: F401

    size = QUICK if args.quick else Size()
    count = size.scenes if args.scenes is None else args.scenes
    if count < 4:
        raise ValueError(f"--scenes must be 4 or more, one for every kind of edit; got {count}.")
    size = replace(
        size,
        scenes=count,
        stepped=min(count, size.stepped),
        seeded=min(count, size.seeded),
        pairs=min(count, size.pairs),
    )
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
        self.pairs = random_pairs(size.pairs, SEED + 2)
        self.sweeps = [_brief(s) for s in SWEEPS] if quick else SWEEPS
        self.ways, self.rivals = ([_brief(s) for s in some] if quick else some for some in (WAYS, RIVALS))
        self.series = {name: sweeps[:1] if quick else sweeps for name, sweeps in SERIES.items()}
        self.edits = Store(out / "edits.csv", edits.KEY, edits.COLUMNS)
        self.steps = Store(out / "steps.csv", edits.KEY, edits.COLUMNS)
        self.seeds = Store(out / "seeds.csv", edits.KEY, edits.SEEDS_COLUMNS)
        self.two = Store(out / "pairs.csv", pairs.KEY, pairs.MEASURES)
        self.shifts = Store(out / "shifts.csv", paper.SHIFT_KEY, paper.SHIFT_MEASURES)
        self.colors = Store(out / "colors.csv", paper.COLOR_KEY, paper.COLOR_MEASURES)
        self.maps = Store(out / "statistics.csv", paper.MAPS_KEY, paper.MAPS_MEASURES)

    @property
    def edited(self) -> list[Sweep]:
        """All that edits are made and compared by."""
        return [*self.sweeps, *self.ways, *self.rivals]

    def estimate(self) -> dict[str, int]:
        """About how many samples each part takes; decoding a picture counts as ten."""
        size, stepped = self.size, [sweep for sweeps in self.series.values() for sweep in sweeps]
        tasks, plain = self.batches.tasks, edits.samples_of(self.sweeps, self.batches.tasks)
        with_ways, every = (edits.samples_of(some, tasks) for some in ([*self.sweeps, *self.ways], self.edited))
        of_seeds = sum(Sweep(s.inversion, s.skips[:1], s.cfgs[:1]).samples for s in self.sweeps)
        return {
            "shifts": size.drawings * paper.SHIFT_SAMPLES,
            "colours": size.drawings * paper.COLOR_SAMPLES,
            "steps": edits.samples_of(stepped, tasks[: size.stepped]),
            "methods": plain + BOUND_SAMPLES * len(tasks),
            "ways": with_ways - plain,
            "rivals with masks": every - with_ways,
            "two edits": pairs.SAMPLES * size.pairs,
            "seeds": (size.seeds + 1) * size.seeded * of_seeds,
        }

    def measure(self) -> None:
        """All that the folder does not hold yet."""
        size, stepped = self.size, [sweep for sweeps in self.series.values() for sweep in sweeps]
        about = self.estimate()
        print("samples:", ", ".join(f"{name} {count:,}" for name, count in about.items()), f"; {sum(about.values()):,}")
        paper.measure_maps(self.model, self.drawings[:8], size.steps, self.maps)
        with progress("shifts", size.drawings) as advance:
            paper.measure_shifts(self.model, self.drawings, self.shifts, advance)
        with progress("colours", size.drawings) as advance:
            paper.measure_colors(self.model, self.drawings, self.colors, advance)
        with progress("steps", about["steps"]) as advance:
            edits.run(self.model, self.batches, stepped, self.steps, size.stepped, advance)
        with progress("edits", sum(about[name] for name in ("methods", "ways", "rivals with masks"))) as advance:
            edits.run_bound(self.model, self.batches, self.edits, advance)
            edits.run(self.model, self.batches, self.edited, self.edits, size.scenes, advance)
        with progress("two edits", about["two edits"]) as advance:
            pairs.measure(self.model, self.pairs, self.two, advance)
        settings = [
            (sweep.inversion, int(top.setting["skip"]), float(top.setting["cfg"]))
            for sweep, top in zip(self.sweeps, self.chosen(self.sweeps))
        ]
        samples = sum(Sweep(inversion, (skip,), (cfg,)).samples for inversion, skip, cfg in settings)
        with progress("seeds", (size.seeds + 1) * size.seeded * samples) as advance:
            edits.run_seeds(self.model, self.batches, settings, self.seeds, size.seeded, size.seeds, advance)

    def points(self, sweeps: Sequence[Sweep]) -> dict[str, list[Point]]:
        """Every setting of some sweeps, by their names."""
        return {sweep.name: points_of_sweep(self.edits, sweep) for sweep in sweeps}

    def families(self) -> dict[str, list[Point]]:
        """The rivals' settings, with masks and without, by the name of the inversion."""
        of_all: dict[str, list[Point]] = {}
        for sweep in [*self.sweeps, *self.rivals]:
            if sweep.inversion.method != "edit-friendly":
                of_all.setdefault(sweep.inversion.name, []).extend(points_of_sweep(self.edits, sweep))
        return of_all

    def bases(self) -> dict[str, str]:
        """What each way of editing is compared with: the same without attention control, or else
        plain edits."""
        plain = self.sweeps[0]
        names = {plain.name: plain.name}
        for sweep in [*self.sweeps[1:], *self.ways, *self.rivals]:
            without = replace(sweep, mode=replace(sweep.mode, attention="none")).name
            controlled = sweep.mode.attention != "none" and without in {other.name for other in self.ways}
            names[sweep.name] = without if controlled else plain.name
        return names

    def chosen(self, sweeps: Sequence[Sweep]) -> list[Point]:
        """The best setting of each of some sweeps."""
        return [best(points) for points in self.points(sweeps).values()]

    def write(self) -> None:
        """The plots, the contact sheets and the report, from what was measured."""
        by_name, chosen, out = self.points(self.sweeps), self.chosen(self.sweeps), self.out
        points = [point for members in by_name.values() for point in members]
        ways = self.points([*self.sweeps[:1], *self.ways])
        rivals = self.points([*self.sweeps[1:], *self.rivals])
        (bound,) = of_method(points_of(self.edits.rows), edits.BOUND)
        self.contact_sheet(self.sweeps).save(out / "contact.png")
        self.contact_sheet([*self.sweeps[:1], *self.ways, *self.rivals]).save(out / "ways_contact.png")
        series = {
            name: [points_of_sweep(self.steps, sweep) for sweep in sweeps] for name, sweeps in self.series.items()
        }
        level = best(next(iter(series.values()))[-1]).mean["kept_psnr"]
        statistics = paper.statistics_of(self.maps.rows)
        degrees = {name: paper.toy_angles(maps) for name, maps in paper.toy().items()}
        masked = ways | self.points(self.rivals)
        everywhere = {n: members for n, members in masked.items() if len(members[0].by_kind) == len(KINDS)}
        figures = {
            "tradeoff": plots.tradeoff_figure(by_name, bound.mean["kept_psnr"]),
            "ways": plots.tradeoff_figure(everywhere, bound.mean["kept_psnr"]),
            "steps": plots.steps_figure(series, level),
            "shifts": plots.shift_figure(self.shifts.rows),
            "colors": plots.color_figure(self.colors.rows),
            "statistics": statistics_figure(statistics),
            "toy": plots.toy_figure(degrees),
        }
        for name, figure in figures.items():
            figure.savefig(out / f"{name}.png")
        every = [
            *points,
            *(point for some in (self.ways, self.rivals) for p in self.points(some).values() for point in p),
        ]
        (out / "settings.csv").write_text(settings_csv([bound, *every]), "utf-8")
        parts = [
            *report.edits_part(self.size, self.edits.rows, chosen, points, bound, self.seed_rows(chosen)),
            *report.worth_part(self.edits.rows, ways, self.bases(), rivals, self.families()),
            *report.pairs_part(self.size, self.two.rows),
            *report.steps_part(self.size, series, level),
            *report.shifts_part(self.size, self.shifts.rows),
            *report.colors_part(self.size, self.colors.rows),
            *report.maps_part(statistics, degrees),
            *report.settings_part(every),
        ]
        (out / "report.md").write_text("\n".join(parts) + "\n", "utf-8")

    def seed_rows(self, chosen: Sequence[Point]) -> dict[str, list[dict]]:
        """What several seeds gave at each method's best setting, by method."""
        return {
            str(point.setting["name"]): self.seeds.select(**{name: point.setting[name] for name in SETTING})
            for point in chosen
        }

    def contact_sheet(self, sweeps: Sequence[Sweep]):
        """The first scenes edited by every sweep at its best setting, as a ``PIL.Image``."""
        rows, first = [], {i: min(sweep.skips) for i, sweep in edits.firsts(self.edited).items()}
        for start in self.batches.starts(self.size.shown):
            shared = self.batches.shared(start)
            truth = shared.truth
            columns = [("source", truth.sources), ("true target", truth.targets)]
            for sweep, top in zip(sweeps, self.chosen(sweeps)):
                setting = int(top.setting["skip"]), float(top.setting["cfg"])
                pictures, _ = edits.edited(
                    self.model, sweep, *setting, range(len(truth.tasks)), shared, first[sweep.inversion]
                )
                columns.append((sweep.name.replace(", ", "\n").replace(" + ", "\n+ "), pictures))
            rows += [[(name, pictures[i]) for name, pictures in columns] for i in range(len(truth.tasks))]
        rows = rows[: self.size.shown]
        unlabelled = [[("", picture) for _, picture in row] for row in rows[:-1]]
        return labelled_grid([*unlabelled, rows[-1]], 160)


def _brief(sweep: Sweep) -> Sweep:
    return replace(sweep, skips=sweep.skips[:1], cfgs=sweep.cfgs[:1])


def points_of_sweep(store: Store, sweep: Sweep) -> list[Point]:
    """The points of every setting of a sweep, in its order."""
    points = []
    for skip, cfg in sweep.settings:
        (key,) = edits.keys(0, 1, sweep.inversion, skip, cfg, sweep.name)
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
