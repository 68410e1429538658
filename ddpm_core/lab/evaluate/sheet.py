"""The contact sheet: all edits of a run on one static page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from .manifest import Entry
from .metrics import METRICS
from .report import ERRORS, TIMES, notes, summaries

STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #8888; }
body {
  font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 90rem; padding: 1rem; overflow-wrap: anywhere;
}
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.05rem; margin: 0; }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: 1rem; }
section > p { margin: .1rem 0 .8rem; opacity: .75; }
.sheet { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(47%, 14rem), 1fr)); }
figure { border: 1px solid var(--line); border-radius: .5rem; margin: 0; overflow: hidden; }
figure.source { border-color: var(--quiet); border-style: dashed; }
figure img { display: block; height: auto; width: 100%; }
figcaption { padding: .6rem .75rem .7rem; }
small { display: block; opacity: .65; }
details { margin-top: .75rem; }
summary { cursor: pointer; opacity: .75; }
dl {
  display: grid; font-size: .85rem; font-variant-numeric: tabular-nums; gap: 0 .5rem;
  grid-template-columns: 1fr auto; margin: .4rem 0 0;
}
dt { opacity: .65; }
dd { margin: 0; text-align: right; white-space: nowrap; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th {
  border-bottom: 1px solid var(--line); overflow-wrap: normal; padding: .3rem 0 .3rem 1.25rem; text-align: right;
}
td:first-child, th:first-child { padding-left: 0; text-align: left; }
"""


def sheet(
    rows_of: Mapping[Entry, Sequence[dict[str, str]]],
    rows: Sequence[dict[str, str]],
    missing: dict[str, str],
    broken: Sequence[tuple[int, str]],
    settings: dict,
) -> str:
    """The contact sheet: static HTML, links relative to its folder; ``rows`` are those of
    ``rows_of``, each once."""
    lines = summaries(rows)
    table = [f"<tr><td>{label}<td>{mean}<td>{error}<td>{count}" for label, mean, error, count, _ in lines]
    meanings = [f"<li>{label}: {meaning}" for label, *_, meaning in lines]
    sections = [_section(entry, of_entry) for entry, of_entry in rows_of.items() if of_entry]
    for title, items in notes(missing, broken, settings):
        listed = "".join(f"<li>{html.escape(item)}" for item in items)
        sections.append(f"<section>\n<h2>{title}</h2>\n<ul>{listed}</ul>\n</section>")
    pictures, newline = len({row["image"] for row in rows}), "\n"  # Python 3.10 allows no backslash in braces
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation</title>
<style>{STYLE}</style>
<h1>Evaluation</h1>
<p>{len(rows)} edits of {pictures} pictures, by {html.escape(settings["inversion"])} inversion.</p>
<table>
<tr><th>metric<th>mean<th>standard error<th>edits
{newline.join(table)}
</table>
<details><summary>What these numbers are</summary>
<ul>
{newline.join(meanings)}
</ul>
<p>{ERRORS} {TIMES}</p></details>
{newline.join(sections)}
</html>
"""


def _section(entry: Entry, rows: Sequence[dict[str, str]]) -> str:
    """A picture and its edits, prompt by prompt."""
    prompt = f"<p>{html.escape(entry.source)}</p>" if entry.source else "<p><i>no source prompt</i></p>"
    panels = [_panel(f"sources/{entry.source_file}", "source picture", "", {}, ' class="source"')]
    for row in sorted(rows, key=lambda row: entry.targets.index(row["target_prompt"])):
        cells = {label: format(float(row[name]), form) for name, (label, form, _) in METRICS.items() if row[name]}
        panels.append(_panel(row["picture"], row["target_prompt"] or "no prompt", f"seed {row['seed']}", cells))
    head = f"<h2>{html.escape(entry.name)}</h2>\n{prompt}"
    return f'<section>\n{head}\n<div class="sheet">\n{"".join(panels)}</div>\n</section>'


def _panel(path: str, title: str, note: str, cells: Mapping[str, str], attributes: str = "") -> str:
    """One picture with its caption and measures; ``path`` is made of safe characters."""
    title = html.escape(title)
    measures = "".join(f"<dt>{name}<dd>{value}" for name, value in cells.items())
    measures = f"<dl>{measures}</dl>" if measures else ""
    return f"""<figure{attributes}><a href="{path}"><img src="{path}" alt="{title}" loading="lazy"></a>
<figcaption>{title}<small>{note}</small>{measures}</figcaption></figure>
"""
