"""How predictions under several prompts become one.

Each function takes predictions (B, C, *S) at one x. All are linear, so they are the same for eps, v
and x0_hat. Letters: u under the negative prompt, s under the source prompt, t under the target
prompt; w the strength of the edit, w0 the guidance that the picture was inverted with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


def classifier_free(negative: Tensor, positive: Tensor, scale: float) -> Tensor:
    """u + w (t - u) (Ho & Salimans 2207.12598, eq. 6)."""
    return negative + scale * (positive - negative)


def from_source(base: Tensor, source: Tensor, target: Tensor, scale: float | Tensor) -> Tensor:
    """base + w (t - s), where base = u + w0 (s - u) is what the inversion was guided by.

    Where the target is the source the base is left, and the picture comes back exactly. With maps
    of the source prompt this one rule is h-Edit-R in its explicit form with equal strengths (Nguyen
    et al. 2503.02187), TurboEdit's pseudo-guidance (Deutch et al. 2408.00735, w0 = 1), and, at eta
    0 on a flow model with a pull to the stored predictions, FlowAlign (2505.23145).
    """
    return base + scale * (target - source)


class Term(NamedTuple):
    """One edit of several: what it wants, how strongly (below 0: less of it), and where."""

    prediction: Tensor  # (B, C, *S)
    scale: float
    mask: Tensor | None = None  # (1 or B, 1, *S) in [0, 1]


def several(base: Tensor, reference: Tensor, terms: Sequence[Term]) -> Tensor:
    """base + sum_i w_i M_i (t_i - reference), LEDITS++'s sum (Brack et al. 2311.16711, eq. 4 and 5)
    on a base that gives the source back.

    ``reference`` is what every edit is compared with: the prediction under the source prompt, or
    under the negative one. The published pipeline's base is the negative prediction, whatever the
    inversion was guided by: without edits another picture.
    """
    for term in terms:
        scale = term.scale if term.mask is None else term.scale * term.mask
        base = from_source(base, reference, term.prediction, scale)
    return base
