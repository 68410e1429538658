"""Results that survive a stop: CSV tables whose rows an interrupted run finds again, and the
settings that they belong to."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

Row = dict[str, str | float]


def as_number(cell: str) -> str | float:
    """A cell that reads as a number as this number, any other as it is."""
    try:
        return float(cell)
    except ValueError:
        return cell


class Store:
    """A CSV file with fixed columns; the rows of earlier runs are read at once, half-written ones
    are dropped.

    The columns named in ``key``, which come first where ``columns`` does not have them, tell one
    row from another. ``read`` makes a value of a cell's text. Raises ValueError for a file with
    other columns.
    """

    def __init__(
        self,
        path: Path,
        key: Sequence[str],
        columns: Iterable[str],
        read: Callable[[str], str | float] = as_number,
    ):
        self.path, self.key, self.read = path, tuple(key), read
        self.columns = (*(name for name in key if name not in columns), *columns)
        self._rows: dict[tuple, Row] = {}
        if path.exists():
            self._load()

    def _load(self) -> None:
        text = self.path.read_bytes().decode("utf-8", errors="replace")
        complete = text[: text.rfind("\n") + 1]
        reader = csv.DictReader(io.StringIO(complete, newline=""))
        if complete and tuple(reader.fieldnames) != self.columns:
            rule = f"{self.path} must begin with the columns {','.join(self.columns)}"
            raise ValueError(f"{rule}; it is of another version: choose another --out.")
        self._keep(row for row in reader if None not in row.values())
        if complete != text:
            self._replace(complete)

    @property
    def rows(self) -> list[Row]:
        """All rows, the earliest first."""
        return list(self._rows.values())

    def append(self, rows: Iterable[Row]) -> None:
        """Keep new rows, in memory and at the file's end; those that are there already are left
        out."""
        new = [{name: str(row[name]) for name in self.columns} for row in rows if not self.holds([row])]
        if not self.path.exists():
            self._replace(self._text([]))
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns).writerows(new)
        self._keep(new)

    def put(self, row: Row) -> None:
        """Keep a new row, or a changed one in its place; the file is replaced at once, so that it
        always has all its rows."""
        self._keep([row])
        self._replace(self._text(self.rows))

    def drop(self, unwanted: Callable[[Row], bool]) -> None:
        """Forget rows; the file loses them with the next ``put``."""
        self._rows = {key: row for key, row in self._rows.items() if not unwanted(row)}

    def holds(self, keys: Iterable[Row]) -> bool:
        """Whether there is a row for every one of these keys (more names than the key's are
        ignored)."""
        return all(self._key(row) in self._rows for row in keys)

    def select(self, **values: str | float) -> list[Row]:
        """The rows with these values."""
        return [row for row in self.rows if all(row[name] == value for name, value in values.items())]

    def _keep(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._rows[self._key(row)] = {name: self.read(str(row[name])) for name in self.columns}

    def _key(self, row: Row) -> tuple:
        return tuple(self.read(str(row[name])) for name in self.key)

    def _text(self, rows: Iterable[Row]) -> str:
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    def _replace(self, text: str) -> None:
        part = self.path.with_suffix(".part")
        part.write_bytes(text.encode("utf-8"))
        part.replace(self.path)


def read_settings(folder: Path) -> dict:
    """The settings noted in a folder. Raises OSError or ValueError where there are none."""
    return json.loads(_settings_file(folder).read_text("utf-8"))


def write_settings(folder: Path, settings: Mapping) -> None:
    """Note the settings of a folder's results in it."""
    _settings_file(folder).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def differences(earlier: Mapping, settings: Mapping) -> dict[str, tuple]:
    """The settings that are not what they were, each with both values, as JSON has them."""
    settings = json.loads(json.dumps(settings))
    pairs = {name: (earlier.get(name), settings.get(name)) for name in {**earlier, **settings}}
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def keep_settings(folder: Path, settings: Mapping) -> None:
    """Make the folder and note the settings in it. Raises ValueError where it holds the results of
    other ones."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _settings_file(folder).exists():
        write_settings(folder, settings)
        return
    changed = differences(read_settings(folder), settings)
    if changed:
        what = "; ".join(f"{name} {old!r}, now {new!r}" for name, (old, new) in changed.items())
        rule = "choose another --out, or delete that folder"
        raise ValueError(f"{folder} holds the results of other settings ({what}): {rule}.")


def _settings_file(folder: Path) -> Path:
    return folder / "settings.json"
