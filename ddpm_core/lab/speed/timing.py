"""Cases on the clock, and what they take of memory."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from ...denoise import ran_out_of_memory
from ...models.stable_diffusion import Pipeline
from ..calls import UNetCalls
from .cases import Case
from .memory import peak_memory


class Meter(UNetCalls):
    """Counts a UNet's calls and times them too: ``seconds()`` is the time within them."""

    def __init__(self, unet: nn.Module):
        super().__init__(unet)
        self.device, self.marks = unet.device, []  # diffusers walks all modules for its device, each time

    def before(self, module, inputs) -> None:
        super().before(module, inputs)
        self._mark()

    def after(self, module, inputs, output) -> None:
        self._mark()

    def _mark(self) -> None:
        if self.device.type == "cuda":  # an event does not hold the queue up
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(clock(self.device))

    def seconds(self) -> float:
        """Seconds within all calls so far."""
        pairs = list(zip(self.marks[::2], self.marks[1::2]))
        if self.device.type == "cuda":
            return sum(begin.elapsed_time(end) for begin, end in pairs) / 1000
        return sum(end - begin for begin, end in pairs)


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    torch.get_device_module(device).synchronize()
    return time.perf_counter()


class Row(NamedTuple):
    """The measures of one case; seconds is the median of the rounds, ratio that of the seconds for
    one picture to the first row's."""

    table: str
    way: str
    steps: int
    skip: int
    cfg_source: float
    cfg: float
    chunk: int | None
    batch: int
    latent: str
    calls: int
    samples: int
    seconds: float
    ratio: float
    model_share: float
    peak_mb: float | None
    kept_mb: float


class Time(NamedTuple):
    """What a case takes of the model and the clock; seconds and share are medians of the rounds."""

    calls: int
    samples: int
    seconds: float
    model_share: float


def measure(model: Pipeline, cases_of: dict[str, list[Case]], repeat: int, bar) -> list[Row]:
    """``repeat`` interleaved rounds of each table on the clock, then all cases once more for their
    memory."""
    times_of = {table: _times(model, cases, repeat, bar) for table, cases in cases_of.items()}
    rows = []
    for table, cases in cases_of.items():
        first = times_of[table][0].seconds / len(cases[0].x0)
        for case, taken in zip(cases, times_of[table]):
            rows.append(_row(model, table, case, taken, first, bar))
    return rows


def _row(model: Pipeline, table: str, case: Case, taken: Time, first: float, bar) -> Row:
    """A case after it ran once more for its memory; ``first`` is the first row's seconds for one
    picture."""
    bar.set_description(f"{case.way}, memory")
    peak, kept = (None, 0) if math.isnan(taken.seconds) else peak_memory(case.run, model.device)
    bar.update()
    batch, _, height, width = case.x0.shape
    return Row(
        table,
        case.way,
        steps=case.preset.steps,
        skip=case.preset.skip,
        cfg_source=case.preset.guidance_source,
        cfg=case.preset.guidance_target,
        chunk=case.chunk,
        batch=batch,
        latent=f"{height}x{width}",
        **taken._asdict(),
        ratio=taken.seconds / batch / first,
        peak_mb=None if peak is None else peak / 1e6,
        kept_mb=kept / 1e6,
    )


def _times(model: Pipeline, cases: list[Case], repeat: int, bar) -> list[Time]:
    """All cases one after the other, ``repeat`` times."""
    rounds = []
    for _ in range(repeat):
        rounds.append([])
        for case in cases:
            bar.set_description(case.way)
            rounds[-1].append(_once(model, case))
            bar.update()
    return [_median(of_case) for of_case in zip(*rounds)]


def _median(times: Sequence[Time]) -> Time:
    seconds, shares = ([getattr(one, name) for one in times] for name in ("seconds", "model_share"))
    return times[-1]._replace(seconds=statistics.median(seconds), model_share=statistics.median(shares))


def _once(model: Pipeline, case: Case) -> Time:
    """One run; NaN where the device has not enough memory for it."""
    seconds = math.nan
    with Meter(model.pipe.unet) as meter:
        begin = clock(model.device)
        try:
            case.run()
            seconds = clock(model.device) - begin
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
    share = math.nan if math.isnan(seconds) else meter.seconds() / seconds
    return Time(len(meter.sizes), sum(meter.sizes), seconds, share)
