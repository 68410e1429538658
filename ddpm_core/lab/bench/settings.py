"""What is measured, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...plan import DEMO, PAPER
from ...steps import Solver
from ..editing import WIDE, Mode
from .edits import Sweep
from .methods import Inversion

VERSION = 5  # of what is measured: results of another one are not gone on with
SEED = 31415  # of the scenes; no training and no choice of the demo settings used it
EDIT_FRIENDLY, NATIVE, DDIM, SDEDIT = map(Inversion, ("edit-friendly", "native", "ddim", "sdedit"))
SWEEPS = [  # inversions, edited plainly: skips to both sides of where 27 dB are kept
    Sweep(EDIT_FRIENDLY, (8, 12), (3.0, 5.0)),
    Sweep(NATIVE, (8, 12), (3.0,)),
    Sweep(DDIM, (8,), (3.0, 5.0)),
    Sweep(Inversion("ddim", cfg_source=3.5), (8, 12), (5.0,)),
    Sweep(Inversion("ddim", corrections=2), (8, 12), (3.0,)),
    Sweep(SDEDIT, (10, 14), (3.0,)),
]
MASK, SOURCE, BOTH = Mode(1.0, mask="auto"), Mode(1.0, guidance="source"), Mode(1.0, mask="auto", guidance="source")
DIFFEDIT = Mode(1.0, mask="diffedit")
# Published is a rate of 0.1, for a network of 16 layers of cross-attention and prompts of 77 tokens: here are 4 and 16.
ZERO = Mode(1.0, guidance="source", attention="zero", rate=0.5)
# Other ways of editing along edit-friendly maps. What a mask keeps can be edited harder, and guidance from the source
# counts from the source's own prediction: it takes less.
WAYS = [
    Sweep(EDIT_FRIENDLY, (4, 8), (5.0, 8.0), MASK),
    Sweep(Inversion(steps=DEMO.steps), (DEMO.skip,), (DEMO.guidance_target,), Mode(1.0, **WIDE)),  # the templates' own
    Sweep(EDIT_FRIENDLY, (8, 12), (3.0,), SOURCE),
    Sweep(EDIT_FRIENDLY, (6, 12), (3.0,), BOTH),
    Sweep(EDIT_FRIENDLY, (6, 12), (5.0,), Mode(1.0, attention="p2p"), kinds=("color", "fill")),
    Sweep(EDIT_FRIENDLY, (6, 12), (3.0,), replace(BOTH, attention="p2p"), kinds=("color", "fill")),
    Sweep(EDIT_FRIENDLY, (6, 12), (5.0,), Mode(1.0, attention="masactrl"), kinds=("shape",)),
    Sweep(EDIT_FRIENDLY, (8, 12), (3.0,), SOURCE, kinds=("color", "shape"), along=True),
    Sweep(EDIT_FRIENDLY, (8, 12), (3.0,), ZERO, kinds=("color", "shape"), along=True),
]
RIVALS = [  # the others with masks of their own: DiffEdit's where the path has no independent noise to read one off
    Sweep(NATIVE, (4, 8), (5.0, 8.0), MASK),
    Sweep(DDIM, (6,), (3.0, 5.0), DIFFEDIT),
    Sweep(SDEDIT, (8,), (5.0,), DIFFEDIT),
]


def three_skips(steps: int, **options) -> Sweep:
    """The paper's share of steps left out, and one less and one more of it."""
    shares = (0.2, PAPER.skip / PAPER.steps, 0.5)
    return Sweep(Inversion(steps=steps, **options), tuple(round(share * steps) for share in shares), (3.0,))


SERIES = {  # ever more steps by solver, and what is tried to make few steps do it
    "first order, eta 1": [three_skips(steps) for steps in (10, 20, 50, 100)],
    "first order, eta 0.5": [three_skips(steps, eta=0.5) for steps in (20,)],
    "first order, eta 0": [three_skips(steps, eta=0.0) for steps in (20,)],
    "first order, eta 1, source cfg 3": [three_skips(steps, cfg_source=3.0) for steps in (20,)],
    "dpmpp_2m_sde, eta 1": [three_skips(steps, solver=Solver.DPMPP_2M_SDE) for steps in (10, 20)],
}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    scenes: int = 200  # edits in the sweep
    stepped: int = 48  # of them for steps and solvers, whole batches
    seeded: int = 8  # of them for several seeds, whole batches
    seeds: int = 3
    pairs: int = 64  # scenes with two edits at once
    drawings: int = 12  # scenes for shifts and colours
    steps: int = 100  # of the maps whose statistics are plotted
    shown: int = 8  # scenes on the contact sheet


QUICK = Size(scenes=8, stepped=8, seeded=8, seeds=2, pairs=8, drawings=2, steps=20, shown=4)
