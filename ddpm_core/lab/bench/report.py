"""Tables and sentences from the rows of a run."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .edits import FIGURES
from .store import Row

SETTING = ("name", "steps", "cfg_source", "eta", "solver", "corrections", "skip", "cfg")
MEANS = (*FIGURES, "samples", "seconds")


@dataclass(frozen=True)
class Point:
    """One setting over all its tasks: means and their standard errors."""

    setting: Row
    mean: dict[str, float]
    error: dict[str, float]
    count: int
    by_kind: dict[str, float] = field(default_factory=dict)  # success

    @property
    def label(self) -> str:
        """The setting in words, without the method."""
        return f"{self.setting['steps']:.0f} steps, skip {self.setting['skip']:.0f}, cfg {self.setting['cfg']:g}"


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard error of the values that are numbers; NaN where there are too few."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return math.nan, math.nan
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def group(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple, list[Row]]:
    """Rows by the values of the named columns, in the order of first appearance."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def points(rows: Iterable[Row]) -> list[Point]:
    """One point a setting."""
    found = []
    for key, members in group(rows, SETTING).items():
        figures = {name: mean_and_error(row[name] for row in members) for name in MEANS}
        kinds = {
            kind: mean_and_error(row["success"] for row in some)[0]
            for (kind,), some in group(members, ("kind",)).items()
        }
        mean, error = ({name: pair[i] for name, pair in figures.items()} for i in (0, 1))
        found.append(Point(dict(zip(SETTING, key)), mean, error, len(members), kinds))
    return found


def best(candidates: Iterable[Point]) -> Point:
    """The setting whose pictures come nearest to the truth: it weighs the edit and what is kept in
    one figure."""
    return max(candidates, key=lambda point: point.mean["target_psnr"])


def frontier(candidates: Iterable[Point]) -> list[Point]:
    """The settings that no other one beats in both success and kept_psnr, by rising kept_psnr."""
    front: list[Point] = []
    for point in sorted(candidates, key=lambda point: (-point.mean["kept_psnr"], -point.mean["success"])):
        if not front or point.mean["success"] > front[-1].mean["success"]:
            front.append(point)
    return front[::-1]


def success_at(candidates: Iterable[Point], kept: float) -> float:
    """Success where the frontier crosses a kept_psnr, interpolated; NaN where every setting keeps
    less, and the best success where all keep more."""
    front = frontier(candidates)
    if kept > front[-1].mean["kept_psnr"]:
        return math.nan
    if kept <= front[0].mean["kept_psnr"]:
        return front[0].mean["success"]
    for low, high in zip(front, front[1:]):
        below, above = low.mean["kept_psnr"], high.mean["kept_psnr"]
        if below <= kept <= above:
            share = (kept - below) / (above - below)
            return low.mean["success"] + share * (high.mean["success"] - low.mean["success"])
    raise AssertionError("a sorted frontier has no gaps")


def relative_time(rows: Sequence[Row], one: Point, other: Point) -> float:
    """The median over batches of one setting's seconds to another's: what else a machine does slows
    both."""
    seconds = [
        {row["task"]: row["seconds"] for row in rows if all(row[name] == point.setting[name] for name in SETTING)}
        for point in (one, other)
    ]
    return statistics.median(seconds[0][task] / seconds[1][task] for task in seconds[0] if task in seconds[1])


def matched(
    rows: Sequence[Row], ours: Sequence[Point], rival: Sequence[Point], kept: float, draws: int = 400
) -> tuple[float, float]:
    """Difference of success where both frontiers cross a kept_psnr, and its standard error by a
    bootstrap over tasks; NaN where one never keeps that much."""
    tasks = sorted({row["task"] for row in rows})
    place = {task: i for i, task in enumerate(tasks)}
    values = []  # of each side: (settings, tasks, 2)
    for some in (ours, rival):
        table = torch.zeros(len(some), len(tasks), 2, dtype=torch.float64)
        for i, point in enumerate(some):
            for row in rows:
                if all(row[name] == point.setting[name] for name in SETTING):
                    table[i, place[row["task"]]] = torch.tensor([row["success"], row["kept_psnr"]], dtype=torch.float64)
        values.append(table)
    generator = torch.Generator().manual_seed(0)

    def difference(chosen: Tensor) -> float:
        sides = [
            [Point({}, {"success": a, "kept_psnr": b}, {}, 0) for a, b in table[:, chosen].mean(1).tolist()]
            for table in values
        ]
        return success_at(sides[0], kept) - success_at(sides[1], kept)

    whole = difference(torch.arange(len(tasks)))
    drawn = [difference(torch.randint(len(tasks), (len(tasks),), generator=generator)) for _ in range(draws)]
    drawn = [value for value in drawn if not math.isnan(value)]
    return whole, statistics.stdev(drawn) if len(drawn) > draws // 2 else math.nan


def paired(rows: Sequence[Row], one: Point, other: Point, figure: str) -> tuple[float, float]:
    """Mean and standard error of the difference of a figure, task by task."""
    values = [
        {row["task"]: row[figure] for row in rows if all(row[name] == point.setting[name] for name in SETTING)}
        for point in (one, other)
    ]
    return mean_and_error(values[0][task] - values[1][task] for task in values[0] if task in values[1])


def verdicts(rows: Sequence[Row], chosen: Sequence[Point], everything: Sequence[Point]) -> str:
    """A line for every rival: by how much the first of the chosen wins or loses, in success at one
    level of preservation, and each at its best setting; clear is what exceeds two standard errors."""
    ours, *rivals = chosen
    level, lines = ours.mean["kept_psnr"], []
    for rival in rivals:
        mean, error = matched(
            rows,
            *([p for p in everything if p.setting["name"] == side.setting["name"]] for side in (ours, rival)),
            level,
        )
        if math.isnan(mean):
            parts = [f"none of its settings keeps {level:.1f} dB"]
        else:
            parts = [
                f"at {level:.1f} dB kept {100 * mean:+.0f} +- {100 * error:.0f} points of success ({_clear(mean, error)})"
            ]
        for figure, unit, scale in (
            ("target_psnr", "dB nearer to the truth", 1),
            ("success", "points of success", 100),
            ("kept_psnr", "dB kept", 1),
        ):
            mean, error = paired(rows, ours, rival, figure)
            parts.append(f"{scale * mean:+.1f} +- {scale * error:.1f} {unit} ({_clear(mean, error)})")
        lines.append(f"- against {rival.setting['name']}: {', '.join(parts)}")
    return "\n".join(lines)


def _clear(mean: float, error: float) -> str:
    return "better" if mean > 2 * error else "worse" if mean < -2 * error else "no clear difference"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: float, digits: int = 1, error: float | None = None, scale: float = 1.0) -> str:
    """A figure with its standard error; a dash for NaN."""
    if math.isnan(value):
        return "-"
    text = f"{scale * value:.{digits}f}"
    return text if error is None or math.isnan(error) else f"{text} +- {scale * error:.{digits}f}"


def edits_table(
    rows: Sequence[Row], chosen: Sequence[Point], everything: Sequence[Point], of_seeds: Mapping[str, Sequence[Row]]
) -> str:
    """The methods at their best settings, and at one level of preservation."""
    ours = next((point for point in chosen if point.setting["name"] == "edit-friendly"), chosen[0])
    level = ours.mean["kept_psnr"]
    head = [
        "method",
        "settings",
        "best setting",
        "success, %",
        "exact, %",
        "kept, dB",
        "kept, SSIM",
        "to the truth, dB",
    ]
    head += ["given back, dB", "diversity", f"success at {level:.1f} dB kept, %", "UNet samples", "time"]
    body = []
    for point in chosen:
        name, mean, error = point.setting["name"], point.mean, point.error
        same = [other for other in everything if other.setting["name"] == name]
        body.append(
            [
                str(name),
                str(len(same)),
                point.label,
                number(mean["success"], 0, error["success"], 100),
                number(mean["exact"], 0, error["exact"], 100),
                number(mean["kept_psnr"], 1, error["kept_psnr"]),
                number(mean["kept_ssim"], 3),
                number(mean["target_psnr"], 1, error["target_psnr"]),
                *(
                    number(mean_and_error(row[figure] for row in of_seeds[str(name)])[0])
                    for figure in ("back_psnr", "diversity")
                ),
                number(success_at(same, level), 0, scale=100),
                number(mean["samples"], 0),
                number(relative_time(rows, point, ours), 2),
            ]
        )
    return table(head, body)


def kinds_table(chosen: Sequence[Point]) -> str:
    """Success by kind of edit."""
    kinds = list(chosen[0].by_kind)
    rows = (
        [str(point.setting["name"]), *(number(point.by_kind[kind], 0, scale=100) for kind in kinds)] for point in chosen
    )
    return table(["success, %", *kinds], rows)


def settings_table(all_points: Sequence[Point]) -> str:
    """Every setting."""
    head = [
        "method",
        "steps",
        "skip",
        "cfg source",
        "cfg",
        "eta",
        "solver",
        "success, %",
        "kept, dB",
        "SSIM",
        "to the truth, dB",
        "UNet samples",
    ]
    rows = []
    for point in all_points:
        setting, mean, error = point.setting, point.mean, point.error
        rows.append(
            [
                str(setting["name"]),
                *(f"{setting[name]:g}" for name in ("steps", "skip", "cfg_source", "cfg", "eta")),
                str(setting["solver"]),
                number(mean["success"], 0, error["success"], 100),
                number(mean["kept_psnr"], 1, error["kept_psnr"]),
                number(mean["kept_ssim"], 3),
                number(mean["target_psnr"], 1, error["target_psnr"]),
                number(mean["samples"], 0),
            ]
        )
    return table(head, rows)


def settings_csv(all_points: Sequence[Point]) -> str:
    """The same with every figure and its standard error, for a spreadsheet."""
    head = [*SETTING, "scenes", *(cell for name in MEANS for cell in (name, f"{name}_error"))]
    rows = [
        [
            *point.setting.values(),
            point.count,
            *(f"{cell:.5g}" for name in MEANS for cell in (point.mean[name], point.error[name])),
        ]
        for point in all_points
    ]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *rows])
    return out.getvalue()


def steps_table(series: Mapping[str, Sequence[Sequence[Point]]], level: float) -> str:
    """Every number of steps of every solver, each with the points of its skips: the best of them,
    and success where they cross ``level`` dB kept."""
    head = [
        "solver",
        "steps",
        "best skip",
        "UNet samples",
        "to the truth, dB",
        "success, %",
        "kept, dB",
        f"success at {level:.1f} dB kept, %",
    ]
    rows = []
    for name, some in series.items():
        for members in some:
            top = best(members)
            setting, mean, error = top.setting, top.mean, top.error
            rows.append(
                [
                    name,
                    *(f"{setting[key]:.0f}" for key in ("steps", "skip")),
                    number(mean["samples"], 0),
                    number(mean["target_psnr"], 1, error["target_psnr"]),
                    number(mean["success"], 0, error["success"], 100),
                    number(mean["kept_psnr"], 1, error["kept_psnr"]),
                    number(success_at(members, level), 0, scale=100),
                ]
            )
    return table(head, rows)


def means_table(rows: Sequence[Row], names: Sequence[str], figures: Mapping[str, str]) -> str:
    """Means and standard errors of figures (column: label), a row for every value of the named
    columns."""
    body = []
    for key, members in group(rows, names).items():
        cells = [value if isinstance(value, str) else f"{value:g}" for value in key]
        for figure in figures:
            mean, error = mean_and_error(row[figure] for row in members)
            cells.append(number(mean, 2 if abs(mean) <= 1 else 1, error))
        body.append(cells)
    return table([*names, *figures.values()], body)
