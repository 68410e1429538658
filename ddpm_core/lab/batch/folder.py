"""The folder of a run: what was made, by which settings, and that one run at a time writes into
it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..store import Table, as_text, check_own, differences, read_settings, write_settings

# The picture comes last, and has no comma and no quote: a long table is read by its last cells.
COLUMNS = ("image", "source_prompt", "target_prompt", "seed", "picture")
OWN = ("results.csv", "errors.csv", "index.html", "report.md")
OF_EACH_ROW = ("manifest", "chunk")  # a row knows its picture and prompts, and the chunk changes no picture


class Folder:
    """settings.json, results.csv, edits and sources (PNG), and errors.csv where something went
    wrong.

    Rows of entries that the manifest no longer has stay. Raises ValueError for a folder with the
    results of other settings, with files of somebody else, or that another run is writing into.
    """

    def __init__(self, path: Path, settings: Mapping, columns: Sequence[str] = COLUMNS):
        self.path = path
        check_own(path, OWN, settings)
        for part in ("edits", "sources"):
            (path / part).mkdir(parents=True, exist_ok=True)
        self._lock = lock(path)
        try:
            self.table = Table(path / "results.csv", columns)
            for half in path.glob("*/*.part"):
                half.unlink(missing_ok=True)
            if self.table.path.exists():
                self._compare(settings)
            write_settings(path, settings)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *error) -> None:
        self._lock.close()

    def _pictures(self) -> set[str]:
        with os.scandir(self.path / "edits") as entries:
            return {f"edits/{entry.name}" for entry in entries}

    def made(self) -> set[str]:
        """The edits with a picture and a row, by the picture's path."""
        there = self._pictures()
        return {picture for picture in self.table.last_cells() if picture in there}

    def _compare(self, settings: Mapping) -> None:
        changed = differences(read_settings(self.path), settings)
        changed = {name: pair for name, pair in changed.items() if name not in OF_EACH_ROW}
        if "clip" in changed and not any(row.get("clip") for row in self.rows()):
            del changed["clip"]  # nothing is scored yet
        for name, (old, new) in changed.items():
            if self.made():
                what = f"results with --{name.replace('_', '-')} {old!r}; got {new!r}"
                raise ValueError(f"{self.path} holds {what}. Give the same setting, or another --out.")

    def rows(self) -> Iterator[dict[str, str]]:
        """The rows whose picture is there; a changed row stands behind the one that it replaces."""
        there = self._pictures()
        return (row for row in self.table if row["picture"] in there)

    def write_errors(self, errors: Iterable[tuple[int | None, str]]) -> None:
        """errors.csv: lines of the manifest and what was wrong with them; none, no file."""
        path, errors = self.path / "errors.csv", in_order(errors)
        if not errors:
            path.unlink(missing_ok=True)
            return
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("line", "error"), *((line, as_text(what)) for line, what in errors)])


def in_order(errors: Iterable[tuple[int | None, str]]) -> list[tuple[int | None, str]]:
    """(line, what is wrong), by lines; what has no line comes first."""
    return sorted(errors, key=lambda error: (error[0] or 0, error[1]))


def lock(folder: Path):
    """An open file that no other process can lock as long as it is open; a process that ends, however
    it ends, lets go of it. Raises ValueError where another process has it."""
    file = (folder / ".lock").open("a+b")
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        rule = "wait for its end, or give another --out"
        raise ValueError(f"{folder}: another run is writing into this folder: {rule}.") from error
    return file
