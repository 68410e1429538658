"""What each way of editing adds and what it costs, against the same without it and against the
rivals with masks of their own: all of it reckoned from the rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from ..store import Row
from ..tables import markdown, number
from .points import Point, best, matched, paired, success_at
from .tables import gain

KEPT, GAIN = 27.0, 0.20  # the goal: at so many dB kept, so much more success than plain edits
CEILING, AT = 0.90, 26.0  # and so much success at so many dB kept


def worth_table(rows: Sequence[Row], ways: Mapping[str, Sequence[Point]], bases: Mapping[str, str]) -> str:
    """A row for every way of ``ways`` that ``bases`` names: its best setting, success at ``KEPT``, and
    what it adds to its base and costs more, on the edits that both were measured on."""
    head = ["way", "edits", "best setting", "success, %", "kept, dB", "to the truth, dB", "form kept, IoU"]
    head += [f"success at {KEPT:g} dB kept, %", "against", "adds there, points", "adds, dB to the truth"]
    head += ["UNet samples", "costs"]
    body = []
    for name, base in bases.items():
        points, others = ways[name], ways[base]
        top, usual = best(points), best(others)
        mean, error = top.mean, top.error
        cells = [name, str(top.count), top.label, number(mean["success"], 0, error["success"], 100)]
        cells += [number(mean[m], 1, error[m]) for m in ("kept_psnr", "target_psnr")]
        cells += [number(mean["form_iou"], 2, error["form_iou"]), number(success_at(points, KEPT), 0, scale=100)]
        if name == base:
            cells += ["-", "-", "-"]
        else:
            gains = matched(rows, points, others, KEPT), paired(rows, top, usual, "target_psnr")
            cells += [base, gain(*gains[0], 0, 100), gain(*gains[1], 1)]
        cells += [number(mean["samples"], 0), f"{mean['samples'] - usual.mean['samples']:+.0f}"]
        body.append(cells)
    return markdown(head, body)


def leader(ways: Mapping[str, Sequence[Point]]) -> str:
    """The way with the most success at ``KEPT`` of those measured on all edits."""
    most = max(point.count for points in ways.values() for point in points)
    whole = {name: points for name, points in ways.items() if all(point.count == most for point in points)}
    return max(whole, key=lambda name: _or_less(success_at(whole[name], KEPT)))


def _or_less(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def goal_lines(
    rows: Sequence[Row],
    plain: Sequence[Point],
    ways: Mapping[str, Sequence[Point]],
    rivals: Mapping[str, Sequence[Point]],
) -> Iterator[str]:
    """A line for every goal, with what was reached: by the leader, against ``plain`` and against
    each rival with all its settings, those with a mask included."""
    name = leader(ways)
    ours = ways[name]
    success = success_at(ours, KEPT)
    if math.isnan(success):
        yield f"- no way keeps {KEPT:g} dB"
        return
    mean, error = matched(rows, ours, plain, KEPT)
    yield f"- the most success at {KEPT:g} dB kept, {100 * success:.0f} %, has {name}"
    if ours is not plain and math.isnan(mean):
        yield "- against plain edits there: none of their settings keeps as much"
    elif ours is not plain:
        goal = f"the goal is {100 * GAIN:+.0f}: {_reached(mean >= GAIN)}"
        yield f"- against plain edits there, in points: {gain(mean, error, 0, 100)}; {goal}"
    for rival, points in rivals.items():
        mean, error = matched(rows, ours, points, KEPT)
        if math.isnan(mean):
            yield f"- against {rival} there: none of its settings keeps as much"
        else:
            yield f"- against {rival} there, in points: {gain(mean, error, 0, 100)}"
    success = success_at(ours, AT)
    said = "-" if math.isnan(success) else f"{100 * success:.0f} %"
    yield f"- at {AT:g} dB kept {said}; the goal is {100 * CEILING:.0f} %: {_reached(success >= CEILING)}"


def far_lines(
    rows: Sequence[Row], ways: Mapping[str, Sequence[Point]], others: Mapping[str, Sequence[Point]]
) -> Iterator[str]:
    """A line for every way and other measured on all edits: success near the most that the other
    keeps (to half a dB), where a way that keeps more shows it."""
    everything = [point for points in (*ways.values(), *others.values()) for point in points]
    most = max(point.count for point in everything)
    for name, points in ways.items():
        for other, theirs in others.items():
            if name != other and {point.count for point in (*points, *theirs)} == {most}:
                level = math.floor(2 * max(point.mean["kept_psnr"] for point in theirs)) / 2
                mean, error = matched(rows, points, theirs, level)
                if not math.isnan(mean):
                    yield f"- {name} against {other} at {level:.1f} dB kept, in points: {gain(mean, error, 0, 100)}"


def _reached(goal: bool) -> str:
    return "reached" if goal else "not reached"
