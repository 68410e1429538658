"""The folder of a run."""

from __future__ import annotations

from pathlib import Path

from ..store import Store, differences, read_settings, write_settings
from .metrics import METRICS

# The picture comes last: a row cut short has none.
COLUMNS = ("image", "source_prompt", "target_prompt", "seed", *METRICS, "picture")
OF_EACH_ROW = ("manifest", "chunk")  # a row knows its picture and prompts, and the chunk changes no picture


class Results:
    """settings.json, results.csv, edits and sources (PNG), report.md and index.html.

    ``rows`` are those of results.csv whose picture is there, by its path; rows of entries that the
    manifest no longer has stay. Raises ValueError for a folder with the results of other settings.
    """

    def __init__(self, folder: Path, settings: dict):
        self.folder, table = folder, folder / "results.csv"
        for part in ("edits", "sources"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._store = Store(table, ("picture",), COLUMNS, read=str)
        self._store.drop(lambda row: not row["picture"] or not (folder / row["picture"]).is_file())
        if table.exists():
            self._compare(settings)
        write_settings(folder, settings)

    @property
    def rows(self) -> dict[str, dict[str, str]]:
        return {row["picture"]: row for row in self._store.rows}

    def _compare(self, settings: dict) -> None:
        try:
            earlier = read_settings(self.folder)
        except (OSError, ValueError) as error:
            reason = f"its settings.json cannot be read ({error})"
            raise ValueError(f"{self.folder} has a results.csv, but {reason}: give another --out.") from error
        scored = any(row["clip"] for row in self.rows.values())
        for name, (old, new) in differences(earlier, settings).items():
            if name in OF_EACH_ROW or name not in settings:
                continue
            if self.rows and (name != "clip" or scored):
                what = f"results with --{name.replace('_', '-')} {old!r}; got {new!r}"
                raise ValueError(f"{self.folder} holds {what}. Give the same setting, or another --out.")

    def add(self, row: dict[str, str]) -> None:
        """A new or changed row."""
        self._store.put(row)
