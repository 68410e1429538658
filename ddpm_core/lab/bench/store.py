"""Results that survive a stop: CSV files that grow row by row, and the settings that they belong
to."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Row = dict[str, str | float]


class Store:
    """A CSV file with fixed columns; the rows of earlier runs are read at once, half-written ones
    are dropped.

    The columns named in ``key`` tell one row from another.
    """

    def __init__(self, path: Path, key: Sequence[str], figures: Sequence[str]):
        self.path, self.key, self.columns = path, tuple(key), (*key, *figures)
        self.rows: list[Row] = []
        self._held: set[tuple] = set()
        head = ",".join(self.columns) + "\n"
        if not path.exists():
            path.write_text(head, "utf-8")
            return
        text = path.read_text("utf-8")
        whole = text[: text.rfind("\n") + 1]
        if not whole.startswith(head):
            raise ValueError(
                f"{path} must begin with the columns {head.strip()}; it is of another version: choose another --out."
            )
        if whole != text:
            path.write_text(whole, "utf-8")
        self._keep({name: _value(cell) for name, cell in row.items()} for row in csv.DictReader(whole.splitlines()))

    def append(self, rows: Iterable[Row]) -> None:
        """Keep rows, in memory and on disk; rows that are there already are left out."""
        rows = [row for row in rows if not self.holds([row])]
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerows(rows)
        self._keep({name: _value(str(row[name])) for name in self.columns} for row in rows)

    def holds(self, keys: Iterable[Row]) -> bool:
        """Whether there is a row for every one of these keys (more names than the key's are
        ignored)."""
        return all(self._key(row) in self._held for row in keys)

    def _keep(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows.append(row)
            self._held.add(self._key(row))

    def _key(self, row: Row) -> tuple:
        return tuple(_value(str(row[name])) for name in self.key)

    def select(self, **values: str | float) -> list[Row]:
        """The rows with these values."""
        return [row for row in self.rows if all(row[name] == value for name, value in values.items())]


def _value(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell


def keep_settings(folder: Path, settings: Mapping) -> None:
    """Make the folder and note the settings in it. Raises ValueError where it holds the results of
    other ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    now = json.loads(json.dumps(settings))
    if not path.exists():
        path.write_text(json.dumps(now, indent=2) + "\n", "utf-8")
        return
    before = json.loads(path.read_text("utf-8"))
    differ = [
        f"{name} {before.get(name)!r}, now {now.get(name)!r}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if differ:
        raise ValueError(
            f"{folder} holds the results of other settings ({'; '.join(differ)}): choose another --out, or delete that folder."
        )
