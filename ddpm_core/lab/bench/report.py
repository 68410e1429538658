"""The report in Markdown, part by part: what was measured, its tables, and how they are to be
read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...measure.stats import Statistics
from ...plan import PAPER
from ..store import Row
from . import pairs, paper, tables, worth
from .edits import BATCH
from .points import Point, best
from .settings import Size
from .tasks import KINDS


def edits_part(
    size: Size,
    rows: Sequence[Row],
    chosen: Sequence[Point],
    points: Sequence[Point],
    bound: Point,
    seed_rows: Mapping[str, Sequence[Row]],
) -> list[str]:
    """The methods against each other; ``bound`` is the autoencoder alone."""
    return [
        "# Does it work?\n",
        f"{size.scenes} edits of drawn scenes, a quarter each of {', '.join(KINDS)}, by the embedded demo model. "
        "The true result of every edit is known. "
        "Numbers are means and standard errors; kept is measured where source and true target agree. "
        "Every method has its best setting of those tried, "
        "the one whose pictures come nearest to the truth, chosen on the same scenes.\n",
        tables.edits_table(rows, chosen, points, seed_rows),
        f"\nNo edit can keep more than the autoencoder does: {bound.mean['kept_psnr']:.1f} dB, "
        f"SSIM {bound.mean['kept_ssim']:.3f}, {bound.mean['target_psnr']:.1f} dB to the truth. "
        f"Diversity: root mean square between the edits of {size.seeds} seeds, in 1/255, "
        f"on {size.seeded} scenes; given back: the source, replayed under its own "
        "prompt and guidance, on the same scenes. UNet samples count inversion and edit, both guidance branches; "
        "time is that of inverting, editing and decoding, "
        f"in batches of {BATCH}, as a multiple of the first row's.\n",
        "Edit-friendly maps against each rival: success at one level of preservation "
        "(interpolated, with a bootstrap over scenes), then each at its best setting:\n",
        tables.verdicts(rows, chosen, points),
        "\n![Success against preservation](tradeoff.png)\n\n![The same scenes under every method](contact.png)\n",
        "## By kind of edit\n",
        tables.kinds_table(chosen),
    ]


def worth_part(
    rows: Sequence[Row],
    ways: Mapping[str, Sequence[Point]],
    bases: Mapping[str, str],
    rivals: Mapping[str, Sequence[Point]],
    families: Mapping[str, Sequence[Point]],
) -> list[str]:
    """What each way of editing adds to its base and costs; ``ways`` begins with plain edits, and
    ``rivals`` are those without masks and with, ``families`` all settings of each rival."""
    plain = next(iter(ways.values()))
    of_ways, of_rivals = ({name: bases[name] for name in some} for some in (ways, rivals))
    everywhere = [top for top in map(best, (ways | rivals).values()) if len(top.by_kind) == len(KINDS)]
    return [
        "\n## What each way of editing is worth\n",
        "Along the same edit-friendly maps: each way against the same without it, on the edits that both were "
        "measured on, paired, with standard errors; clear is what exceeds two of them. "
        "Success at one level of preservation is interpolated along a way's settings. "
        "Form kept: of new colours and fills, how much the object lies where the source's does. "
        "UNet samples count the inversion, the mask and the edit; a backward pass counts as one sample. "
        "Costs: samples of the best setting beyond those of the other's best setting.\n",
        worth.worth_table(rows, ways, of_ways),
        "\nThe goals, and what was reached:\n",
        *worth.goal_lines(rows, plain, ways, families),
        "\nWhere the other keeps as much as it can:\n",
        *worth.far_lines(rows, ways, ways | rivals),
        "\nThe rivals, plainly and with masks of their own, against plain edit-friendly edits:\n",
        worth.worth_table(rows, {**ways, **rivals}, of_rivals),
        "\nBy kind of edit, what was measured on all of them, each at its best setting:\n",
        tables.kinds_table(everywhere),
        "\n![Success against preservation](ways.png)\n\n![The same scenes in every way](ways_contact.png)\n",
    ]


def pairs_part(size: Size, rows: Sequence[Row]) -> list[str]:
    return [
        "\n## Two edits at once\n",
        f"{size.pairs} scenes: a new colour of the shape and a new background, each alone and both in one run, "
        f"each with the mask of its own prompt, guided from the source; {pairs.CFG:g} guidance, skip {pairs.SKIP}.\n",
        pairs.table(rows),
    ]


def steps_part(size: Size, series: Mapping[str, Sequence[Sequence[Point]]], level: float) -> list[str]:
    """Steps and solvers, compared at ``level`` dB kept."""
    return [
        "\n## Steps and solvers\n",
        f"Edit-friendly maps on the first {size.stepped} of the scenes, cfg 3; of three skips "
        f"(a fifth, the paper's {PAPER.skip / PAPER.steps:.0%} and half of the steps) "
        "the one that comes nearest to the truth, and success at one level of preservation.\n",
        tables.steps_table(series, level),
        "\n![Quality against UNet samples](steps.png)\n",
    ]


def shifts_part(size: Size, rows: Sequence[Row]) -> list[str]:
    return [
        "## Shifts\n",
        f"{size.drawings} scenes, {paper.STEPS} steps, no step left out, cfg 1; "
        "PSNR in dB to the truly shifted scene.\n",
        tables.means_table(rows, ("method", "cells"), paper.SHIFT_MEASURES),
        "\n![Shifts](shifts.png)\n",
    ]


def colors_part(size: Size, rows: Sequence[Row]) -> list[str]:
    return [
        "## Colours\n",
        f"A new colour for the shape of {size.drawings} scenes, without a prompt, {paper.STEPS} steps. "
        f"The setting is the push's strength (skip {paper.COLOR_SKIP}), or SDEdit's skip. "
        "The colour is painted in flat, or with lights and darks kept.\n",
        tables.means_table(rows, ("method", "setting"), paper.COLOR_MEASURES),
        "\n![Colours](colors.png)\n",
    ]


def maps_part(statistics: Mapping[str, Statistics], degrees: Mapping[str, Tensor]) -> list[str]:
    """What the maps look like; ``degrees`` are the toy's angles."""
    lines = ["## What the maps look like\n"]
    for name, of_maps in statistics.items():
        variance, correlation = of_maps.variance.median(), of_maps.correlation.mean()
        lines.append(f"- {name}: median variance {variance:.1f}, mean correlation of neighbours {correlation:.2f}")
    for name, of_maps in degrees.items():
        obtuse = 100 * (of_maps > 90).double().mean()
        lines.append(f"- 2-D Gaussian, {name}: mean angle {of_maps.mean():.0f} degrees, {obtuse:.0f} % obtuse")
    return [*lines, "\n![Statistics](statistics.png)\n\n![Angles](toy.png)\n"]


def settings_part(points: Sequence[Point]) -> list[str]:
    return ["## Every setting\n", tables.settings_table(points)]
