"""What the contact sheet says of the measures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from .metrics import METRICS
from .report import ERRORS, TIMES, summaries


def head(rows: Sequence[Mapping[str, str]], settings: dict) -> str:
    """The means of a run, as HTML."""
    lines = summaries(rows)
    table = [f"<tr><td>{label}<td>{mean}<td>{error}<td>{count}" for label, mean, error, count, _ in lines]
    meanings = [f"<li>{label}: {meaning}" for label, *_, meaning in lines]
    pictures, newline = len({row["image"] for row in rows}), "\n"  # Python 3.10 allows no backslash in braces
    return f"""<p>{len(rows)} edits of {pictures} pictures, by {html.escape(settings["inversion"])} inversion.</p>
<table>
<tr><th>metric<th>mean<th>standard error<th>edits
{newline.join(table)}
</table>
<details><summary>What these numbers are</summary>
<ul>
{newline.join(meanings)}
</ul>
<p>{ERRORS} {TIMES}</p></details>"""


def cells(row: Mapping[str, str]) -> dict[str, str]:
    """The measures of an edit, as text."""
    return {label: format(float(row[name]), form) for name, (label, form, _) in METRICS.items() if row[name]}
