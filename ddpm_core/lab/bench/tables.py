"""The tables and sentences of the report, from the rows and points of a run."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

from ..store import Row
from ..tables import markdown, mean_and_error, number
from .points import MEANS, SETTING, Point, best, group, matched, of_method, paired, relative_time, success_at

CLEAR = 2  # standard errors


def edits_table(
    rows: Sequence[Row], chosen: Sequence[Point], points: Sequence[Point], seed_rows: Mapping[str, Sequence[Row]]
) -> str:
    """The methods at their best settings, and at one level of preservation; ``seed_rows`` are
    those of ``run_seeds`` by method."""
    ours = next((point for point in chosen if point.setting["name"] == "edit-friendly"), chosen[0])
    level = ours.mean["kept_psnr"]
    head = ["method", "settings", "best setting", "success, %", "exact, %", "kept, dB", "kept, SSIM"]
    head += ["to the truth, dB", "given back, dB", "diversity", f"success at {level:.1f} dB kept, %"]
    head += ["UNet samples", "time"]
    body = []
    for point in chosen:
        name, mean, error = str(point.setting["name"]), point.mean, point.error
        same = of_method(points, name)
        cells = [name, str(len(same)), point.label]
        cells += [number(mean[measure], 0, error[measure], 100) for measure in ("success", "exact")]
        cells += _kept_and_truth(point)
        for measure in ("back_psnr", "diversity"):
            cells.append(number(mean_and_error(row[measure] for row in seed_rows[name])[0]))
        cells.append(number(success_at(same, level), 0, scale=100))
        cells.append(number(mean["samples"], 0))
        cells.append(number(relative_time(rows, point, ours), 2))
        body.append(cells)
    return markdown(head, body)


def _kept_and_truth(point: Point) -> list[str]:
    """The cells kept in dB, kept in SSIM, and to the truth in dB."""
    mean, error = point.mean, point.error
    return [
        number(mean["kept_psnr"], 1, error["kept_psnr"]),
        number(mean["kept_ssim"], 3),
        number(mean["target_psnr"], 1, error["target_psnr"]),
    ]


def verdicts(rows: Sequence[Row], chosen: Sequence[Point], points: Sequence[Point]) -> str:
    """A line for every rival: by how much the first of the chosen wins or loses, in success at
    one level of preservation, and each at its best setting; clear is what exceeds two standard
    errors."""
    ours, *rivals = chosen
    lines = []
    for rival in rivals:
        parts = ", ".join(_comparisons(rows, ours, rival, points))
        lines.append(f"- against {rival.setting['name']}: {parts}")
    return "\n".join(lines)


def _comparisons(rows: Sequence[Row], ours: Point, rival: Point, points: Sequence[Point]) -> Iterator[str]:
    level = ours.mean["kept_psnr"]
    mine, others = (of_method(points, side.setting["name"]) for side in (ours, rival))
    mean, error = matched(rows, mine, others, level)
    if math.isnan(mean):
        yield f"none of its settings keeps {level:.1f} dB"
    else:
        yield f"at {level:.1f} dB kept {gain(mean, error, 0, 100, ' points of success')}"
    for measure, unit, scale in (
        ("target_psnr", "dB nearer to the truth", 1),
        ("success", "points of success", 100),
        ("kept_psnr", "dB kept", 1),
    ):
        mean, error = paired(rows, ours, rival, measure)
        yield gain(mean, error, 1, scale, f" {unit}")


def clear(mean: float, error: float) -> str:
    """Whether a difference exceeds two standard errors, in words."""
    return "better" if mean > CLEAR * error else "worse" if mean < -CLEAR * error else "no clear difference"


def gain(mean: float, error: float, digits: int, scale: float = 1, unit: str = "") -> str:
    """A difference with its error and what to think of it; a dash where there is none, and no error
    of a single one."""
    if math.isnan(mean):
        return "-"
    text = f"{scale * mean:+.{digits}f}"
    if math.isnan(error):
        return text + unit
    return f"{text} +- {scale * error:.{digits}f}{unit} ({clear(mean, error)})"


def kinds_table(chosen: Sequence[Point]) -> str:
    """Success by kind of edit."""
    kinds = list(chosen[0].by_kind)
    rows = (
        [str(point.setting["name"]), *(number(point.by_kind[kind], 0, scale=100) for kind in kinds)] for point in chosen
    )
    return markdown(["success, %", *kinds], rows)


def settings_table(points: Sequence[Point]) -> str:
    """Every setting."""
    head = ["method", "steps", "skip", "cfg source", "cfg", "eta", "solver", "success, %", "kept, dB", "SSIM"]
    head += ["to the truth, dB", "UNet samples"]
    rows = []
    for point in points:
        setting, mean = point.setting, point.mean
        cells = [str(setting["name"])]
        cells += [f"{setting[name]:g}" for name in ("steps", "skip", "cfg_source", "cfg", "eta")]
        cells += [str(setting["solver"]), number(mean["success"], 0, point.error["success"], 100)]
        rows.append([*cells, *_kept_and_truth(point), number(mean["samples"], 0)])
    return markdown(head, rows)


def settings_csv(points: Sequence[Point]) -> str:
    """The same with every measure and its standard error, for a spreadsheet."""
    head = [*SETTING, "scenes", *(cell for name in MEANS for cell in (name, f"{name}_error"))]
    rows = []
    for point in points:
        cells = [f"{value:.5g}" for name in MEANS for value in (point.mean[name], point.error[name])]
        rows.append([*point.setting.values(), point.count, *cells])
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *rows])
    return out.getvalue()


def steps_table(series: Mapping[str, Sequence[Sequence[Point]]], level: float) -> str:
    """Every number of steps of every solver, each with the points of its skips: the best of
    them, and success where they cross ``level`` dB kept."""
    head = ["solver", "steps", "best skip", "UNet samples", "to the truth, dB", "success, %", "kept, dB"]
    head.append(f"success at {level:.1f} dB kept, %")
    rows = []
    for name, of_steps in series.items():
        for points in of_steps:
            top = best(points)
            setting, mean, error = top.setting, top.mean, top.error
            rows.append(
                [
                    name,
                    *(f"{setting[key]:.0f}" for key in ("steps", "skip")),
                    number(mean["samples"], 0),
                    number(mean["target_psnr"], 1, error["target_psnr"]),
                    number(mean["success"], 0, error["success"], 100),
                    number(mean["kept_psnr"], 1, error["kept_psnr"]),
                    number(success_at(points, level), 0, scale=100),
                ]
            )
    return markdown(head, rows)


def means_table(rows: Sequence[Row], names: Sequence[str], measures: Mapping[str, str]) -> str:
    """Means and standard errors of measures (column: label), a row for every value of the named
    columns."""
    body = []
    for key, members in group(rows, names).items():
        cells = [value if isinstance(value, str) else f"{value:g}" for value in key]
        for measure in measures:
            mean, error = mean_and_error(row[measure] for row in members)
            cells.append(number(mean, 2 if abs(mean) <= 1 else 1, error))
        body.append(cells)
    return markdown([*names, *measures.values()], body)
