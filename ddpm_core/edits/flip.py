"""The picture mirrored (on the maps of arXiv 2304.06140, An Edit Friendly DDPM Noise Space)."""

from __future__ import annotations

import dataclasses

from ..checks import BadArgument
from ..maps import NoiseMaps

FLIPS = {"left-right": -1, "upside down": -2}


def flip(maps: NoiseMaps, direction: str) -> NoiseMaps:
    """Mirror the picture: everything that the maps hold, "left-right" or "upside down". Raises
    BadArgument."""
    if direction not in FLIPS:
        raise BadArgument("direction", f"direction must be one of {', '.join(FLIPS)}; got {direction!r}.")
    return dataclasses.replace(maps, **{name: t.flip(FLIPS[direction]) for name, t in maps.tensors().items()})
