"""Jobs: what there is to do for one picture, and who does it."""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ...denoise import ran_out_of_memory
from ...inversions.choice import invert_by
from ...maps import NoiseMaps
from ...measure.pictures import from_image, load_picture, save_picture, to_image
from ...models.stable_diffusion import Pipeline
from ...plan import Plan
from ..editing import Mode, edited_latent
from ..options import check_device, load_model, plan_of, side_of
from .manifest import Entry


@dataclass(frozen=True)
class Failure:
    """Why a job ended before its last row, and how many rows it lacks."""

    what: str
    lacking: int


class Worker:
    """The settings of a run, and its model, which is loaded when the first job asks for it."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.folder = args, args.out

    @cached_property
    def model(self) -> Pipeline:
        check_device(self.args.device)
        return load_model(self.args)

    def source(self, entry: Entry) -> Tensor:
        """The picture of an entry (1, 3, H, W), as it lies in the folder, or else is put there. Raises
        ValueError for whatever is wrong with the file."""
        path = self.folder / "sources" / entry.source_file
        if not path.is_file():
            save_picture(to_image(read_source(entry, side_of(self.args, self.model), self.model.cell)[0]), path)
        return read_png(path)


@dataclass(frozen=True)
class Outline:
    """The question before all jobs of a run: what the settings come to with the model."""

    size = 1

    def do(self, worker: Worker) -> Iterator[dict]:
        args = worker.args
        yield {"plan": plan_of(args, worker.model), "mode": Mode.of(args)}


@dataclass(frozen=True)
class Job:
    """One inversion of a picture, and the edits along it.

    entry    the picture and its source prompt
    targets  the target prompts, of the entry's
    plan     of the inversion, with its seed
    mode     of the edits
    """

    entry: Entry
    targets: tuple[str, ...]
    plan: Plan
    mode: Mode

    @property
    def size(self) -> int:
        return len(self.targets)

    def do(self, worker: Worker) -> Iterator[dict]:
        """Write the edits, and give a row for each."""
        source = worker.source(self.entry)
        start = time.perf_counter()
        maps = self._invert(worker, source)
        inverting = time.perf_counter() - start
        for target in self.targets:
            picture = f"edits/{self.entry.file(target, self.plan.seed)}"
            start = time.perf_counter()
            image = to_image(worker.model.decode(self._edit(worker, maps, target))[0])
            editing = time.perf_counter() - start
            save_picture(image, worker.folder / picture)
            yield {
                "image": self.entry.name,
                "source_prompt": self.entry.source,
                "target_prompt": target,
                "seed": str(self.plan.seed),
                "seconds_inversion": f"{inverting:.4g}",
                "seconds_edit": f"{editing:.4g}",
                "picture": picture,
            }

    def _invert(self, worker: Worker, picture: Tensor) -> NoiseMaps:
        args, model, denoise = worker.args, worker.model, None
        if args.inversion != "sdedit":
            denoise = model.denoiser(self.entry.source, guidance=args.cfg_source, negative=args.negative)
        x0 = model.encode(picture).to(args.device)
        return invert_by(args.inversion, denoise, x0, self.plan, chunk=args.chunk, cap=args.cap)

    def _edit(self, worker: Worker, maps: NoiseMaps, target: str) -> Tensor:
        options = {"chunk": worker.args.chunk, "device": worker.args.device}
        return edited_latent(self.mode, worker.model, maps, self.entry.source, target, **options)


def finished(job, worker: Worker) -> Iterator[dict | Failure]:
    """The rows of a job; what its picture, its prompts or the memory have against it is the last of
    them. Raises what ends the run: OSError (a full disk), and mistakes of the code."""
    made = 0
    try:
        for row in job.do(worker):
            made += 1
            yield row
    except (ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not ran_out_of_memory(error):
            raise
        yield Failure(str(error), job.size - made)


def answer(job, worker: Worker) -> list[dict | Failure | Exception]:
    """``finished``, as a message between processes: all rows, and last what ends the run."""
    rows = []
    try:
        rows.extend(finished(job, worker))  # row by row: what was made before an error is told
    except OSError as error:
        rows.append(OSError(*error.args, *([error.filename] if error.filename else [])))
    except Exception:
        rows.append(RuntimeError(f"a worker failed:\n{traceback.format_exc()}"))
    return rows


def told_of(job, rows: Iterable[dict | Failure | Exception]) -> Iterator[tuple[object, dict | Failure]]:
    """(job, row) of an ``answer``. Raises what ended the run."""
    for row in rows:
        if isinstance(row, Exception):
            raise row
        yield job, row


def read_source(entry: Entry, side: int, cell: int) -> Tensor:
    """The picture of an entry (1, 3, H, W). Raises ValueError for whatever is wrong with the file."""
    try:
        return load_picture(entry.image, side, cell)
    except Exception as error:  # Pillow raises many kinds for foreign files
        raise ValueError(f"init_img {entry.name} cannot be read as a picture: {error}") from error


def read_png(path: Path) -> Tensor:
    """A picture of the folder, (1, 3, H, W) in [0, 1]: what is measured is what lies on the disk, in
    this run or a later one."""
    from PIL import Image

    with Image.open(path) as image:
        return from_image(image)[None]
