"""The arithmetic of the report: from rows, one an edit, to points, one a setting, and how points
compare."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..store import Row
from ..tables import mean_and_error
from .edits import MEASURES

SETTING = ("name", "steps", "cfg_source", "eta", "solver", "corrections", "skip", "cfg")
MEANS = (*MEASURES, "samples", "seconds")
DRAWS = 400  # of the bootstrap


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


def group(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple, list[Row]]:
    """Rows by the values of the named columns, in the order of first appearance."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def points_of(rows: Iterable[Row]) -> list[Point]:
    """One point a setting."""
    points = []
    for setting, members in group(rows, SETTING).items():
        pairs = {name: mean_and_error(row[name] for row in members) for name in MEANS}
        mean, error = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
        by_kind = {
            kind: mean_and_error(row["success"] for row in rows_of_kind)[0]
            for (kind,), rows_of_kind in group(members, ["kind"]).items()
        }
        points.append(Point(dict(zip(SETTING, setting)), mean, error, len(members), by_kind))
    return points


def of_method(points: Iterable[Point], name: str | float) -> list[Point]:
    """All settings of one method."""
    return [point for point in points if point.setting["name"] == name]


def best(candidates: Iterable[Point]) -> Point:
    """The setting whose pictures come nearest to the truth: it weighs the edit and what is kept in
    one measure."""
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


def by_task(rows: Iterable[Row], point: Point, measure: str) -> dict[float, float]:
    """A measure of each task at one setting."""
    return {row["task"]: row[measure] for row in rows if all(row[name] == point.setting[name] for name in SETTING)}


def relative_time(rows: Sequence[Row], one: Point, other: Point) -> float:
    """The median over batches of one setting's seconds to another's: what else a machine does slows
    both."""
    mine, others = (by_task(rows, point, "seconds") for point in (one, other))
    return statistics.median(mine[task] / others[task] for task in mine if task in others)


def paired(rows: Sequence[Row], one: Point, other: Point, measure: str) -> tuple[float, float]:
    """Mean and standard error of the difference of a measure, one's less the other's, task by
    task."""
    mine, others = (by_task(rows, point, measure) for point in (one, other))
    return mean_and_error(mine[task] - others[task] for task in mine if task in others)


def matched(rows: Sequence[Row], ours: Sequence[Point], rival: Sequence[Point], kept: float) -> tuple[float, float]:
    """Difference of success where both frontiers cross a kept_psnr, and its standard error by a
    bootstrap over the tasks that all of the settings were measured on; NaN where one never keeps
    that much."""
    tables = _tables(rows, (ours, rival))
    count = tables[0].shape[1]
    generator = torch.Generator().manual_seed(0)

    def difference(places: Tensor) -> float:
        sides = []
        for table in tables:
            means = table[:, places].mean(1).tolist()
            sides.append([Point({}, {"success": success, "kept_psnr": psnr}, {}, 0) for success, psnr in means])
        return success_at(sides[0], kept) - success_at(sides[1], kept)

    if not count:
        return math.nan, math.nan
    of_all = difference(torch.arange(count))
    drawn = [difference(torch.randint(count, (count,), generator=generator)) for _ in range(DRAWS)]
    drawn = [value for value in drawn if not math.isnan(value)]
    return of_all, statistics.stdev(drawn) if len(drawn) > DRAWS // 2 else math.nan


def _tables(rows: Sequence[Row], sides: Sequence[Sequence[Point]]) -> list[Tensor]:
    """(success, kept_psnr) of every setting of each side, and of every task that all of them have:
    (points, tasks, 2), float64."""
    columns = [[[by_task(rows, point, m) for m in ("success", "kept_psnr")] for point in side] for side in sides]
    tasks = sorted(set.intersection(*(set(of_point[0]) for side in columns for of_point in side)))
    return [
        torch.tensor(
            [[[measure[task] for measure in of_point] for task in tasks] for of_point in side], dtype=torch.float64
        ).view(len(side), len(tasks), 2)
        for side in columns
    ]
