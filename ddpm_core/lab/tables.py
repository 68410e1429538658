"""Means with their standard errors, and tables of them in Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

Picture = TypeVar("Picture")


def mean_and_error(values: Iterable[float], groups: Iterable[Hashable] | None = None) -> tuple[float, float]:
    """Mean and standard error of the values that are numbers; NaN where there are too few.

    Values of one group are alike, so the error counts groups (a cluster-robust error): with C
    groups and n values sqrt(C / (C - 1) sum_c (sum_{i in c} (x_i - mean))^2) / n. Without
    ``groups`` each value is its own, and that is s / sqrt(n).
    """
    pairs = zip(values, itertools.count() if groups is None else groups)
    pairs = [(value, group) for value, group in pairs if not math.isnan(value)]
    if not pairs:
        return math.nan, math.nan
    mean = sum(value for value, _ in pairs) / len(pairs)
    sums: dict[Hashable, float] = {}
    for value, group in pairs:
        sums[group] = sums.get(group, 0.0) + value - mean
    count = len(sums)
    if count < 2:
        return mean, math.nan
    return mean, math.sqrt(count / (count - 1) * sum(s * s for s in sums.values())) / len(pairs)


def mean_over_pairs(edits: Sequence[Picture], distance: Callable[[Picture, Picture], float]) -> float:
    """Diversity (arXiv 2304.06140, section 4): the mean distance between the edits of one picture
    and prompt by different seeds, over all pairs of them. NaN where there is one edit only."""
    distances = [distance(one, other) for one, other in itertools.combinations(edits, 2)]
    return sum(distances) / len(distances) if distances else math.nan


def number(value: float, digits: int = 1, error: float | None = None, scale: float = 1.0) -> str:
    """A mean with its standard error; a dash for NaN."""
    if math.isnan(value):
        return "-"
    text = f"{scale * value:.{digits}f}"
    return text if error is None or math.isnan(error) else f"{text} +- {scale * error:.{digits}f}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
