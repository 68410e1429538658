"""A window of an edit: some of the steps, from a start down to an end, in per cent of the whole
schedule."""

from __future__ import annotations

from ..checks import BadArgument
from ..maps import NoiseMaps


def steps_between(maps: NoiseMaps, start: float, end: float) -> list[bool]:
    """Which of the maps' steps lie from ``start`` down to ``end``, t in per cent of the whole
    schedule, 100 at its noisy end.

    Raises BadArgument for a window that is none, or that has no step.
    """
    if not 0 <= end < start <= 100:
        rule = "start and end are per cent of the steps with 0 <= end < start <= 100"
        raise BadArgument("start" if end >= 0 else "end", f"{rule}; got start {start:g}, end {end:g}.")
    chosen = [end <= t <= start for t in maps.times]
    if not any(chosen):
        first = f"these maps begin at {maps.times[0]:g} per cent"
        raise BadArgument("start", f"No step lies between start {start:g} and end {end:g} per cent; {first}.")
    return chosen
