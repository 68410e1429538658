"""``python -m ddpm_core bench``: run every measurement on the demo model, and write the report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from ...demo.model import FOLDER
from ...demo.scenes import random_scenes
from ...measure.pictures import labelled_grid
from ...measure.plots import statistics_figure
from ...measure.stats import Statistics
from ...models.stable_diffusion import Pipeline
from ...plan import PAPER
from ...steps import Solver
from . import edits, paper, plots, report
from .edits import Batches, Sweep
from .methods import Inversion, edit
from .report import Point
from .store import Store, keep_settings
from .tasks import KINDS, random_tasks

VERSION = 2  # of what is measured: results of another one are not gone on with
SEED = 31415  # of the scenes; no training and no choice of the demo settings used it
SWEEPS = [
    Sweep(Inversion("edit-friendly"), (4, 8, 12), (3.0, 5.0)),
    Sweep(Inversion("native"), (4, 8, 12), (3.0, 5.0)),
    Sweep(Inversion("ddim"), (4, 8, 12), (3.0, 5.0)),
    Sweep(Inversion("ddim", cfg_source=3.5), (4, 8, 12), (5.0,)),
    Sweep(Inversion("ddim", corrections=2), (4, 8, 12), (3.0,)),
    Sweep(Inversion("sdedit"), (6, 10, 14), (3.0, 5.0)),
]


def _of(steps: int, **options) -> Sweep:
    """The paper's share of steps left out, and one less and one more of it."""
    return Sweep(
        Inversion(steps=steps, **options),
        tuple(round(share * steps) for share in (0.2, PAPER.skip / PAPER.steps, 0.5)),
        (3.0,),
    )


SERIES = {  # ever more steps by solver, and what is tried to make few steps do it
    "first order, eta 1": [_of(steps) for steps in (8, 10, 20, 50, 100)],
    "first order, eta 0.5": [_of(steps, eta=0.5) for steps in (8, 10, 20, 50)],
    "first order, eta 0": [_of(steps, eta=0.0) for steps in (10, 20)],
    "first order, eta 1, source cfg 3": [_of(steps, cfg_source=3.0) for steps in (10, 20)],
    "dpmpp_2m_sde, eta 1": [_of(steps, solver=Solver.DPMPP_2M_SDE) for steps in (10, 20)],
}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    scenes: int = 200  # edits in the sweep
    stepped: int = 24  # of them for steps and solvers, whole batches
    seeded: int = 16  # of them for several seeds, whole batches
    seeds: int = 3
    drawings: int = 16  # scenes for shifts and colours
    steps: int = 100  # of the maps whose statistics are plotted
    shown: int = 8  # scenes on the contact sheet


QUICK = Size(scenes=8, stepped=8, seeded=8, seeds=2, drawings=2, steps=20, shown=4)


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
    """One run and its folder; stopped at any time, it goes on where it was."""

    def __init__(self, model: Pipeline, size: Size, out: Path, *, quick: bool = False):
        self.model, self.size, self.out = model, size, out
        self.batches = Batches(model, random_tasks(size.scenes, SEED))
        self.drawings = random_scenes(size.drawings, SEED + 1)
        self.sweeps = [Sweep(s.inversion, s.skips[:1], s.cfgs[:1]) for s in SWEEPS] if quick else SWEEPS
        self.series = {name: some[:1] if quick else some for name, some in SERIES.items()}
        self.edits = Store(out / "edits.csv", edits.KEY, edits.COLUMNS)
        self.steps = Store(out / "steps.csv", edits.KEY, edits.COLUMNS)
        self.seeds = Store(out / "seeds.csv", edits.KEY, edits.SEEDS_COLUMNS)
        self.shifts = Store(out / "shifts.csv", paper.SHIFT_KEY, paper.SHIFT_FIGURES)
        self.colors = Store(out / "colors.csv", paper.COLOR_KEY, paper.COLOR_FIGURES)
        self.maps = Store(out / "statistics.csv", paper.MAPS_KEY, paper.MAPS_FIGURES)

    def measure(self) -> None:
        """Everything that the folder does not hold yet."""
        size, stepped = self.size, [sweep for some in self.series.values() for sweep in some]
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
            (sweep.inversion, int(best.setting["skip"]), float(best.setting["cfg"]))
            for sweep, best in zip(self.sweeps, self.chosen())
        ]
        with progress(
            "seeds",
            (size.seeds + 1)
            * size.seeded
            * sum(Sweep(inversion, (skip,), (cfg,)).samples for inversion, skip, cfg in settings),
        ) as advance:
            edits.run_seeds(self.model, self.batches, settings, self.seeds, size.seeded, size.seeds, advance)

    def points(self) -> list[Point]:
        """Every setting of the sweep."""
        return [point for sweep in self.sweeps for point in self._points(self.edits, sweep)]

    def chosen(self) -> list[Point]:
        """The best setting of every sweep."""
        everything = self.points()
        return [
            report.best(point for point in everything if point.setting["name"] == sweep.inversion.name)
            for sweep in self.sweeps
        ]

    def write(self) -> None:
        """The figures, the contact sheet and the report, from what was measured."""
        everything, chosen, out = self.points(), self.chosen(), self.out
        (bound,) = (point for point in report.points(self.edits.rows) if point.setting["name"] == edits.BOUND)
        self.contact_sheet(chosen).save(out / "contact.png")
        of_series = {name: [self._points(self.steps, sweep) for sweep in some] for name, some in self.series.items()}
        level = report.best(next(iter(of_series.values()))[-1]).mean["kept_psnr"]
        found = paper.statistics_of(self.maps.rows)
        degrees = {name: paper.toy_angles(maps) for name, maps in paper.toy().items()}
        figures = {
            "tradeoff": plots.tradeoff_figure(everything, bound.mean["kept_psnr"]),
            "steps": plots.steps_figure(of_series, level),
            "shifts": plots.shift_figure(self.shifts.rows),
            "colors": plots.color_figure(self.colors.rows),
            "statistics": statistics_figure(found),
            "toy": plots.toy_figure(degrees),
        }
        for name, figure in figures.items():
            figure.savefig(out / f"{name}.png")
        (out / "settings.csv").write_text(report.settings_csv([bound, *everything]), "utf-8")
        (out / "report.md").write_text(self.text(everything, chosen, bound, of_series, level, found, degrees), "utf-8")

    def text(
        self,
        everything: Sequence[Point],
        chosen: Sequence[Point],
        bound: Point,
        of_series: Mapping[str, Sequence[Sequence[Point]]],
        level: float,
        found: Mapping[str, Statistics],
        degrees: Mapping[str, Tensor],
    ) -> str:
        """The report in Markdown."""
        of_seeds = {
            point.setting["name"]: self.seeds.select(**{name: point.setting[name] for name in report.SETTING})
            for point in chosen
        }
        parts = [
            "# Does it work?\n",
            f"{self.size.scenes} edits of drawn scenes, a quarter each of {', '.join(KINDS)}, by the embedded demo model. "
            "The true result of every edit is known. "
            "Figures are means and standard errors; kept is measured where source and true target agree. Every method has its best setting of those tried, "
            "the one whose pictures come nearest to the truth, chosen on the same scenes.\n",
            report.edits_table(self.edits.rows, chosen, everything, of_seeds),
            f"\nNo edit can keep more than the autoencoder does: {bound.mean['kept_psnr']:.1f} dB, SSIM {bound.mean['kept_ssim']:.3f}, "
            f"{bound.mean['target_psnr']:.1f} dB to the truth. "
            f"Diversity: root mean square between the edits of {self.size.seeds} seeds, in 1/255, "
            f"on {self.size.seeded} scenes; given back: the source, replayed under its own "
            "prompt and guidance, on the same scenes. UNet samples count inversion and edit, both guidance branches; "
            "time is that of inverting, editing and decoding, "
            f"in batches of {edits.BATCH}, as a multiple of the first row's.\n",
            "Edit-friendly maps against each rival: success at one level of preservation (interpolated, with a bootstrap over scenes), "
            "then each at its best setting:\n",
            report.verdicts(self.edits.rows, chosen, everything),
            "\n![Success against preservation](tradeoff.png)\n\n![The same scenes under every method](contact.png)\n",
            "## By kind of edit\n",
            report.kinds_table(chosen),
            "\n## Steps and solvers\n",
            f"Edit-friendly maps on the first {self.size.stepped} of the scenes, cfg 3; of three skips "
            f"(a fifth, the paper's {PAPER.skip / PAPER.steps:.0%} and half of the steps) "
            "the one that comes nearest to the truth, and success at one level of preservation.\n",
            report.steps_table(of_series, level),
            "\n![Quality against UNet samples](steps.png)\n",
            "## Shifts\n",
            f"{self.size.drawings} scenes, {paper.STEPS} steps, no step left out, cfg 1; PSNR in dB to the truly shifted scene.\n",
            report.means_table(self.shifts.rows, ("method", "cells"), paper.SHIFT_FIGURES),
            "\n![Shifts](shifts.png)\n",
            "## Colours\n",
            f"A new colour for the shape of {self.size.drawings} scenes, without a prompt, {paper.STEPS} steps. "
            f"The setting is the push's strength (skip {paper.COLOR_SKIP}), or SDEdit's skip. The colour is painted in flat, or with lights and darks kept.\n",
            report.means_table(self.colors.rows, ("method", "setting"), paper.COLOR_FIGURES),
            "\n![Colours](colors.png)\n",
            "## What the maps look like\n",
            *(
                f"- {name}: median variance {some.variance.median():.1f}, mean correlation of neighbours {some.correlation.mean():.2f}"
                for name, some in found.items()
            ),
            *(
                f"- 2-D Gaussian, {name}: mean angle {some.mean():.0f} degrees, {100 * (some > 90).double().mean():.0f} % obtuse"
                for name, some in degrees.items()
            ),
            "\n![Statistics](statistics.png)\n\n![Angles](toy.png)\n",
            "## Every setting\n",
            report.settings_table(everything),
        ]
        return "\n".join(parts) + "\n"

    def _points(self, store: Store, sweep: Sweep) -> list[Point]:
        """The points of every setting of a sweep."""
        wanted = [edits.keys(0, 1, sweep.inversion, *setting)[0] for setting in sweep.settings]
        return [
            point
            for key in wanted
            for point in report.points(store.select(**{name: key[name] for name in report.SETTING}))
        ]

    def contact_sheet(self, chosen: Sequence[Point]):
        """The first scenes under every method at its best setting, as a ``PIL.Image``."""
        rows = []
        for start in self.batches.starts(self.size.shown):
            truth, x0 = self.batches.get(start)
            sources, targets = zip(*(task.captions for task in truth.tasks))
            columns = [("source", truth.sources), ("true target", truth.targets)]
            for sweep, best in zip(self.sweeps, chosen):
                maps = sweep.inversion.run(self.model, x0, sources, skip=int(best.setting["skip"]))
                columns.append(
                    (
                        sweep.inversion.name.replace(", ", "\n"),
                        edit(self.model, maps, targets, float(best.setting["cfg"])),
                    )
                )
            rows += [[(name, pictures[i]) for name, pictures in columns] for i in range(len(truth.tasks))]
        rows = rows[: self.size.shown]
        return labelled_grid(
            [[(name if row is rows[-1] else "", picture) for name, picture in row] for row in rows], 160
        )


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with the remaining time; what an earlier run did passes in a moment."""
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
