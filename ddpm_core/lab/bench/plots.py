"""The benchmark's plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...measure.plots import COLORS, DASHES, axes_style, new_figure
from ..store import Row
from ..tables import mean_and_error
from .paper import COLOR_MEASURES, SHIFTS
from .points import Point, best, frontier, group, success_at

MARKERS = "osD^vPX*"


def tradeoff_figure(points: Mapping[str, Sequence[Point]], bound: float):
    """Success against preservation, a curve a method: small marks are settings, the line runs
    through those that no other of the method beats in both. Where methods were measured on
    different numbers of edits, the legend says of those with fewer how many.

    ``bound`` is the kept_psnr of the autoencoder alone.
    """
    most = max(point.count for members in points.values() for point in members)
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for i, (name, members) in enumerate(points.items()):
        front = frontier(members)
        fewer = "" if front[0].count == most else f" ({front[0].count} edits)"
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        axes.plot(
            [p.mean["kept_psnr"] for p in members],
            [100 * p.mean["success"] for p in members],
            marker,
            color=color,
            markersize=3.5,
            alpha=0.45,
        )
        axes.errorbar(
            [p.mean["kept_psnr"] for p in front],
            [100 * p.mean["success"] for p in front],
            yerr=[100 * p.error["success"] for p in front],
            color=color,
            marker=marker,
            markersize=6,
            linewidth=2,
            elinewidth=0.8,
            linestyle=DASHES[i % len(DASHES)],
            label=name + fewer,
        )
    axes.axvline(bound, color="#6b6b6b", linewidth=1.2, linestyle=(0, (2, 2)))
    axes.annotate("autoencoder alone ", (bound, 2), rotation=90, ha="right", va="bottom", color="#6b6b6b", fontsize=9)
    axes_style(
        axes, "Edits of scenes whose true result is known", "kept: PSNR where nothing should change, dB", "success, %"
    )
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=10, loc="lower left")
    return figure


def steps_figure(series: Mapping[str, Sequence[Sequence[Point]]], level: float):
    """Distance to the truth at the best skip, and success at ``level`` dB kept, against the UNet
    samples of a picture: a curve a solver, a mark for every number of steps."""
    figure = new_figure(11, 4.5)
    truth, success = figure.subplots(1, 2)
    for i, (label, of_steps) in enumerate(series.items()):
        style = {
            "color": COLORS[i % len(COLORS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": DASHES[i % len(DASHES)],
            "linewidth": 2,
            "markersize": 5,
        }
        tops = [best(members) for members in of_steps]
        samples = [top.mean["samples"] for top in tops]
        errors = [top.error["target_psnr"] for top in tops]
        truth.errorbar(
            samples, [top.mean["target_psnr"] for top in tops], yerr=errors, elinewidth=0.8, label=label, **style
        )
        success.plot(samples, [100 * success_at(members, level) for members in of_steps], label=label, **style)
        if i == 0:
            for top in tops:
                where = (top.mean["samples"], top.mean["target_psnr"])
                truth.annotate(
                    f"{top.setting['steps']:.0f} steps", where, (4, -12), textcoords="offset points", fontsize=9
                )
    axes_style(truth, "How near the truth, at the best skip", "UNet samples a picture", "PSNR to the true target, dB")
    axes_style(success, f"Success at {level:.1f} dB kept", "UNet samples a picture", "success, %")
    for axes in (truth, success):
        axes.set_xscale("log")
        axes.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
        axes.set_xticks([], minor=True)
    success.legend(frameon=False, fontsize=9)
    return figure


def shift_figure(rows: Sequence[Row]):
    """PSNR of shifted scenes against the truly shifted drawing, where the picture was moved to and
    in the vacated cells."""
    figure = new_figure(10, 4)
    titles = {"psnr_moved": "What was moved", "psnr_vacated": "What the model drew into the gap"}
    for axes, (name, title) in zip(figure.subplots(1, 2, sharey=True), titles.items()):
        for i, ((method,), members) in enumerate(group(rows, ("method",)).items()):
            means, errors = zip(
                *(mean_and_error(row[name] for row in members if row["cells"] == cells) for cells in SHIFTS)
            )
            style = {
                "color": COLORS[i],
                "marker": MARKERS[i],
                "linestyle": DASHES[i],
                "linewidth": 2,
                "elinewidth": 0.8,
            }
            axes.errorbar(range(len(SHIFTS)), means, yerr=errors, label=str(method), **style)
        axes.set_xticks(range(len(SHIFTS)), [str(cells) for cells in SHIFTS])
        axes_style(axes, title, "shift in latent cells of 24", "PSNR to the truly shifted scene, dB")
    axes.legend(frameon=False, fontsize=10)
    return figure


def color_figure(rows: Sequence[Row]):
    """Error of the colour against what is kept, texture inside and all outside: a curve a method, a
    mark a setting."""
    figure = new_figure(10, 4)
    labels = {"texture": "texture kept inside (correlation)", "outside_psnr": "kept outside, dB"}
    for axes, (name, unit) in zip(figure.subplots(1, 2, sharey=True), labels.items()):
        for i, ((method,), members) in enumerate(group(rows, ("method",)).items()):
            means = [
                {measure: mean_and_error(row[measure] for row in rows_of_setting)[0] for measure in COLOR_MEASURES}
                for rows_of_setting in group(members, ("setting",)).values()
            ]
            style = {"color": COLORS[i], "marker": MARKERS[i], "linestyle": DASHES[i % len(DASHES)], "linewidth": 2}
            axes.plot(
                [mean[name] for mean in means], [mean["inside_rmse"] for mean in means], label=str(method), **style
            )
            for (value,), mean in zip(group(members, ("setting",)), means):
                axes.annotate(
                    f"{value:g}", (mean[name], mean["inside_rmse"]), (5, 5), textcoords="offset points", fontsize=9
                )
        axes_style(axes, "", unit, "error of the colour inside, 1/255")
    axes.legend(frameon=False, fontsize=10)
    return figure


def toy_figure(degrees: Mapping[str, Tensor]):
    """Histogram of the angles between neighbouring maps of 2-D points, degrees (T-2, N) by name."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for i, (name, of_maps) in enumerate(degrees.items()):
        axes.hist(
            of_maps.flatten().tolist(),
            bins=36,
            range=(0, 180),
            density=True,
            histtype="step",
            linewidth=2,
            color=COLORS[i],
            label=name,
        )
    axes.set_xticks(range(0, 181, 45))
    axes_style(axes, "Angle between a map and the next, 2-D Gaussian", "degrees", "density")
    axes.legend(frameon=False, fontsize=10, loc="upper left")
    return figure
