"""One of several inversions by its name: the paper's, and what it is measured against."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from ..checks import BadArgument
from ..denoise import Callback, Denoise
from ..maps import NoiseMaps
from ..plan import Plan
from .ddim import invert_ddim
from .edit_friendly import invert
from .native import native_path
from .sdedit import sdedit
from .turbo import cap_last, shifted_path

INVERSIONS = ("edit-friendly", "native", "ddim", "sdedit", "turbo")


def invert_by(
    method: str,
    denoise: Denoise | None,
    x0: Tensor,
    plan: Plan,
    *,
    chunk: int = 8,
    corrections: int = 0,
    cap: float = 0.0,
    mask: Tensor | None = None,
    callback: Callback | None = None,
) -> NoiseMaps:
    """The noise maps of a clean latent by one of ``INVERSIONS``; arguments as for ``invert``.

    "ddim" has eta 0 and first order whatever the plan says, draws nothing and takes one step a
    call; ``corrections`` are its own. "sdedit" asks no model (None will do) and is of first order.
    "turbo" is for few-step models; ``cap`` is its own (``cap_last``), and 0 is none.
    """
    if method not in INVERSIONS:
        raise BadArgument("method", f"The inversion must be one of {', '.join(INVERSIONS)}; got {method!r}.")
    if method == "sdedit":
        maps = sdedit(x0, plan)
    elif method == "ddim":
        maps = invert_ddim(denoise, x0, plan, corrections=corrections, callback=callback)
    else:
        paths = {"native": native_path, "turbo": shifted_path}
        path = paths[method](x0, plan) if method in paths else None
        maps = invert(denoise, x0, plan, chunk=chunk, mask=mask, path=path, callback=callback)
        return cap_last(maps, cap) if method == "turbo" else maps
    return maps if mask is None else dataclasses.replace(maps, mask=mask.to(maps.latents))
