"""What is measured, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

from ...plan import PAPER
from ...steps import Solver
from .edits import Sweep
from .methods import Inversion

VERSION = 2  # of what is measured: results of another one are not gone on with
SEED = 31415  # of the scenes; no training and no choice of the demo settings used it
SWEEPS = [
    Sweep(Inversion("edit-friendly"), (4, 8, 12), (3.0, 5.0)),
    Sweep(Inversion("native"), (4, 8, 12), (3.0, 5.0)),
    Sweep(Inversion("ddim"), (4, 8, 12), (3.0, 5.0)),
    Sweep(Inversion("ddim", cfg_source=3.5), (4, 8, 12), (5.0,)),
    Sweep(Inversion("ddim", corrections=2), (4, 8, 12), (3.0,)),
    Sweep(Inversion("sdedit"), (6, 10, 14), (3.0, 5.0)),
]


def three_skips(steps: int, **options) -> Sweep:
    """The paper's share of steps left out, and one less and one more of it."""
    shares = (0.2, PAPER.skip / PAPER.steps, 0.5)
    return Sweep(Inversion(steps=steps, **options), tuple(round(share * steps) for share in shares), (3.0,))


SERIES = {  # ever more steps by solver, and what is tried to make few steps do it
    "first order, eta 1": [three_skips(steps) for steps in (8, 10, 20, 50, 100)],
    "first order, eta 0.5": [three_skips(steps, eta=0.5) for steps in (8, 10, 20, 50)],
    "first order, eta 0": [three_skips(steps, eta=0.0) for steps in (10, 20)],
    "first order, eta 1, source cfg 3": [three_skips(steps, cfg_source=3.0) for steps in (10, 20)],
    "dpmpp_2m_sde, eta 1": [three_skips(steps, solver=Solver.DPMPP_2M_SDE) for steps in (10, 20)],
}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    scenes: int = 200  # edits in the sweep
    stepped: int = 24  # of them for steps and solvers, whole batches
    seeded: int = 16  # of them for several seeds, whole batches
    seeds: int = 3
    drawings: int = 16  # scenes for shifts and colours
    steps: int = 100  # of the maps whose statistics are plotted
    shown: int = 8  # scenes on the contact sheet


QUICK = Size(scenes=8, stepped=8, seeded=8, seeds=2, drawings=2, steps=20, shown=4)
