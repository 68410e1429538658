"""The measures of a run: means and errors, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..tables import markdown, mean_and_error
from .metrics import METRICS

ERRORS = "The standard error takes the edits of one picture as one group."
TIMES = (
    "Loading the model, reading and writing files and the metrics are in neither time; "
    "a first picture on a GPU includes its warming up."
)


def summary(rows: Sequence[dict[str, str]], name: str) -> tuple[float, float, int]:
    """Mean of a metric over all rows that have it, its standard error with the edits of one picture
    as one group, and how many these are; NaN where there is none."""
    values = [(float(row[name]), row["image"]) for row in rows if row[name]]
    mean, error = mean_and_error((value for value, _ in values), (image for _, image in values))
    return mean, error, len(values)


def summaries(rows: Sequence[dict[str, str]]) -> list[tuple[str, ...]]:
    """(metric, mean, standard error, number of edits, what it is) of every metric, as text."""
    lines = []
    for name, (label, form, meaning) in METRICS.items():
        mean, error, count = summary(rows, name)
        numbers = ("-" if math.isnan(value) else format(value, form) for value in (mean, error))
        lines.append((label, *numbers, str(count), meaning))
    return lines


def report(rows: Sequence[dict[str, str]], planned: int, lists: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The measures of a run in Markdown, and titled lists."""
    pictures = len({row["image"] for row in rows})
    parts = [
        "# Evaluation",
        f"{len(rows)} of {planned} edits, of {pictures} pictures.",
        markdown(("metric", "mean", "standard error", "edits", "what it is"), summaries(rows)),
        f"{ERRORS} {TIMES}",
    ]
    for title, items in lists:
        parts += [f"## {title}", "\n".join(f"- {item}" for item in items)]
    return "\n\n".join(parts) + "\n"
