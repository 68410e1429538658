"""The contact sheet: the edits of a run on one static page."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence

from .manifest import Entry

SHOWN = 1000  # edits on the page: a browser opens no page of a million

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


Row = Mapping[str, str]


def sheet(
    title: str,
    head: str,
    rows_of: Iterable[tuple[Entry, Sequence[Row]]],
    lists: Sequence[tuple[str, Sequence[str]]],
    cells: Callable[[Row], Mapping[str, str]] = lambda row: {},
) -> str:
    """Static HTML, links relative to its folder: ``head`` (HTML), the edits of each picture, up to
    ``SHOWN`` of them, and titled lists.

    cells  what is said of an edit: {name: value}
    """
    sections, left = [], SHOWN
    for entry, rows in rows_of:
        if rows and left > 0:
            sections.append(_section(entry, rows[:left], cells))
        left -= len(rows)
        if left < 0:
            sections.append(f"<section>\n<p>These are the first {SHOWN}; all lie in the folder edits.</p>\n</section>")
            break
    for heading, items in lists:
        listed = "".join(f"<li>{html.escape(item)}" for item in items)
        sections.append(f"<section>\n<h2>{heading}</h2>\n<ul>{listed}</ul>\n</section>")
    newline = "\n"  # Python 3.10 allows no backslash in braces
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
<h1>{title}</h1>
{head}
{newline.join(sections)}
</html>
"""


def _section(entry: Entry, rows: Sequence[Row], cells: Callable[[Row], Mapping[str, str]]) -> str:
    """A picture and its edits, prompt by prompt."""
    prompt = f"<p>{html.escape(entry.source)}</p>" if entry.source else "<p><i>no source prompt</i></p>"
    panels = [_panel(f"sources/{entry.source_file}", "source picture", "", {}, ' class="source"')]
    for row in sorted(rows, key=lambda row: entry.targets.index(row["target_prompt"])):
        panels.append(_panel(row["picture"], row["target_prompt"] or "no prompt", f"seed {row['seed']}", cells(row)))
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
