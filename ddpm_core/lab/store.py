"""Results that survive a stop: CSV tables whose rows an interrupted run finds again, and the
settings that they belong to."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

Row = dict[str, str | float]
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def as_number(cell: str) -> str | float:
    """A cell that reads as a number as this number, any other as it is."""
    try:
        return float(cell)
    except ValueError:
        return cell


def as_text(cell):
    """What a cell is written as: a text that a spreadsheet would take for a formula gets an
    apostrophe before it."""
    formula = isinstance(cell, str) and _FORMULA.match(cell) and isinstance(as_number(cell), str)
    return f"'{cell}" if formula else cell


def from_text(text: str) -> str:
    """What was written by ``as_text``."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


class Table:
    """A CSV file with fixed columns that only grows: a row is there from its line's end on, and what
    a stopped run wrote of a line is cut off here.

    Nothing of it is kept in memory. Raises ValueError for a file with other columns.
    """

    def __init__(self, path: Path, columns: Iterable[str]):
        self.path, self.columns = path, tuple(columns)
        if self._size():
            self._cut()
        if self._size():
            with path.open(encoding="utf-8", errors="replace", newline="") as file:
                if tuple(next(csv.reader(file))) != self.columns:
                    rule = f"{path} must begin with the columns {','.join(self.columns)}"
                    raise ValueError(f"{rule}; it is of another version: choose another --out.")

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _cut(self) -> None:
        """Leave whole lines only."""
        with self.path.open("r+b") as file:
            end, block = file.seek(0, os.SEEK_END), b""
            while end and b"\n" not in block:
                start = max(0, end - 65536)
                file.seek(start)
                block = file.read(end - start)
                end = start
            file.truncate(end + block.rfind(b"\n") + 1)

    def __iter__(self) -> Iterator[dict[str, str]]:
        """All rows, the earliest first; what is no row is left out."""
        if self._size():
            with self.path.open(encoding="utf-8", errors="replace", newline="") as file:
                for cells in itertools.islice(csv.reader(file), 1, None):
                    if len(cells) == len(self.columns):
                        yield dict(zip(self.columns, map(from_text, cells)))

    def append(self, rows: Iterable[Mapping]) -> None:
        """Write rows at the end; what else they hold is left out. Raises OSError, and then nothing
        of them stays."""
        size, text = self._size(), io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore")
        if not size:
            writer.writeheader()
        writer.writerows({name: as_text(cell) for name, cell in row.items()} for row in rows)
        try:
            with self.path.open("ab", buffering=0) as file:
                data = memoryview(text.getvalue().encode("utf-8"))
                while data:
                    data = data[file.write(data) :]
        except OSError:
            if self.path.exists():
                os.truncate(self.path, size)
            raise

    def arrange(self, order: Iterable[str]) -> None:
        """Bring the rows into this order of their last cells, which are plain words, and leave the
        others behind them; of rows with the same last cell the newest stays. The file is replaced at
        once."""
        if not self._size():
            return
        part = self.path.with_suffix(".part")
        with self.path.open("rb") as file, part.open("wb") as sorted_file:
            sorted_file.write(file.readline())
            starts, start = {}, file.tell()
            for line in file:
                starts[_last_cell(line)] = start
                start += len(line)
            for key in itertools.chain((key.encode() for key in order), list(starts)):
                start = starts.pop(key, None)
                if start is not None:
                    file.seek(start)
                    sorted_file.write(file.readline())
        part.replace(self.path)

    def last_cells(self) -> Iterator[str]:
        """The last cell of every row, which is a plain word: a quick look at a long file."""
        if self._size():
            with self.path.open("rb") as file:
                for line in itertools.islice(file, 1, None):
                    yield _last_cell(line).decode("utf-8", errors="replace")


def _last_cell(line: bytes) -> bytes:
    return line.rstrip(b"\r\n").rpartition(b",")[2]


class Store:
    """A table with its rows in memory; those of earlier runs are read at once.

    The columns named in ``key``, which come first where ``columns`` does not have them, tell one
    row from another; cells that read as numbers are numbers. Raises ValueError for a file with
    other columns.
    """

    def __init__(self, path: Path, key: Sequence[str], columns: Iterable[str]):
        self.key = tuple(key)
        self._table = Table(path, (*(name for name in key if name not in columns), *columns))
        self._rows: dict[tuple, Row] = {}
        self._keep(self._table)

    @property
    def rows(self) -> list[Row]:
        """All rows, the earliest first."""
        return list(self._rows.values())

    def append(self, rows: Iterable[Row]) -> None:
        """Keep new rows, in memory and at the file's end; those that are there already are left
        out."""
        new = [row for row in rows if not self.holds([row])]
        self._table.append(new)
        self._keep(new)

    def holds(self, keys: Iterable[Row]) -> bool:
        """Whether there is a row for every one of these keys (more names than the key's are
        ignored)."""
        return all(self._key(row) in self._rows for row in keys)

    def select(self, **values: str | float) -> list[Row]:
        """The rows with these values."""
        return [row for row in self.rows if all(row[name] == value for name, value in values.items())]

    def _keep(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._rows[self._key(row)] = {name: as_number(str(row[name])) for name in self._table.columns}

    def _key(self, row: Row) -> tuple:
        return tuple(as_number(str(row[name])) for name in self.key)


def read_settings(folder: Path) -> dict:
    """The settings noted in a folder. Raises OSError where there are none, and ValueError for a
    file that is something else."""
    path = _settings_file(folder)
    try:
        settings = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must hold a run's settings; it is no JSON ({error}).") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold a run's settings; it holds a {type(settings).__name__}.")
    return settings


def write_settings(folder: Path, settings: Mapping) -> None:
    """Note the settings of a folder's results in it; the file is there whole or not at all."""
    path = _settings_file(folder)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    part.replace(path)


def check_own(folder: Path, names: Iterable[str], settings: Mapping) -> None:
    """Refuse a folder with files of these names that are not a run's: settings.json is missing
    beside them, or has not half of these settings. Raises ValueError."""
    there = sorted(name for name in {*names, _settings_file(folder).name} if (folder / name).exists())
    rule = "choose another --out, or move what lies there"
    try:
        if there and len(settings.keys() & read_settings(folder).keys()) < len(settings) / 2:
            raise ValueError(f"{_settings_file(folder)} has other settings than a run's")
    except (OSError, ValueError) as error:
        reason = "there is no settings.json of a run" if isinstance(error, FileNotFoundError) else error
        raise ValueError(f"{folder} holds files of somebody else ({', '.join(there)}; {reason}): {rule}.") from error


def differences(earlier: Mapping, settings: Mapping) -> dict[str, tuple]:
    """The settings that are not what they were, each with both values, as JSON has them."""
    settings = json.loads(json.dumps(settings))
    pairs = {name: (earlier.get(name), settings.get(name)) for name in {**earlier, **settings}}
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def keep_settings(folder: Path, settings: Mapping) -> None:
    """Make the folder and note the settings in it. Raises ValueError where it holds the results of
    other ones."""
    folder.mkdir(parents=True, exist_ok=True)
    check_own(folder, [], settings)
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
