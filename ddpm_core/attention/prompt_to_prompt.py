"""Prompt-to-Prompt (arXiv 2208.01626, Prompt-to-Prompt Image Editing with Cross Attention Control),
without explicit maps.

The edited attention is linear in the values, so it is made of ordinary attention calls. With the
queries and keys q_s, k_s of the source's row on its stored path, and q, k, v of the target's row,

    cross   softmax(q_s k_s^T) (C v) + softmax(q k^T) (o * v)
    self    softmax(q_s k_s^T) v

where C (Ls, Lt) and o (Lt,) follow from the words, their weights and their windows
(``Control.coefficients``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..checks import BadArgument
from .words import WordMap

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q (..., Lq, D), k (..., Lk, D), v (..., Lk, E) -> (..., Lq, E)


@dataclass(frozen=True)
class Control:
    """What of the source's attention the edit takes over, and for how long.

    words        the word map of both prompts
    cross, self_ shares of the executed steps, from the first on, in which cross- and self-attention
    are the source's
    weights      word of the target: factor of its attention inside its window (Prompt-to-Prompt's
                 equalizer); useful -2 to 4
    windows      word of the target: its own share instead of ``cross``
    largest      self-attention is taken over in layers of at most 1/largest of the latent's width
                 and height

    Raises BadArgument.
    """

    words: WordMap
    cross: float = 0.68
    self_: float = 0.227
    weights: Mapping[str, float] = field(default_factory=dict)
    windows: Mapping[str, float] = field(default_factory=dict)
    largest: int = 4

    def __post_init__(self):
        for name, share in (
            ("cross", self.cross),
            ("self_", self.self_),
            *(("windows", s) for s in self.windows.values()),
        ):
            if not 0 <= share <= 1:
                raise BadArgument(name, f"A share of the steps must lie in [0, 1]; got {share:g}.")
        for word in (*self.weights, *self.windows):
            self.words.target.positions(word)  # refuses a word that the target does not have

    def acts_at(self, step: int, steps: int) -> tuple[bool, bool]:
        """Whether cross- and self-attention are changed at a step of ``steps`` executed ones: the
        source is asked only then."""
        shares = [self.cross, *self.windows.values()]
        return any(step < share * steps for share in shares), step < self.self_ * steps

    def coefficients(self, step: int, steps: int) -> tuple[Tensor, Tensor]:
        """(C (Ls, Lt), o (Lt,)) at a step: with a window a_n in {0, 1} and a weight c_n for each
        token,

            C[w, n] = a_n c_n taken[w, n],    o[n] = a_n c_n own[n] + 1 - a_n
        """
        target = self.words.target
        inside = torch.full((target.length,), float(step < self.cross * steps))
        for word, share in self.windows.items():
            inside[target.positions(word)] = float(step < share * steps)
        weight = torch.ones(target.length)
        for word, factor in self.weights.items():
            weight[target.positions(word)] = factor
        return inside * weight * self.words.taken, inside * weight * self.words.own + 1 - inside


def cross_attention(
    attend: Attend, q_source: Tensor, k_source: Tensor, q: Tensor, k: Tensor, v: Tensor, taken: Tensor, own: Tensor
) -> Tensor:
    """The target's cross-attention: all (..., L, D), with Ls keys of the source and Lt of the
    target."""
    return attend(q_source, k_source, taken.to(v) @ v) + attend(q, k, own.to(v)[:, None] * v)


def cross_attention_change(
    attend: Attend, q_source: Tensor, k_source: Tensor, q: Tensor, k: Tensor, v: Tensor, taken: Tensor, own: Tensor
) -> Tensor:
    """What ``cross_attention`` adds to the target's plain attention: for where others have changed
    that already."""
    return attend(q_source, k_source, taken.to(v) @ v) - attend(q, k, (1 - own).to(v)[:, None] * v)


def token_map(attend: Attend, q: Tensor, k: Tensor, positions: list[int]) -> Tensor:
    """How much every query looks at some of the keys together, in [0, 1]: (..., Lq). Attention to
    values that are 1 there; where D is made of several heads, their mean."""
    return attend(q, k, token_values(k, positions)).mean(-1)


def token_values(k: Tensor, positions: list[int]) -> Tensor:
    """Values of the keys' shape (..., Lk, D): 1 at some of the positions, else 0."""
    chosen = torch.zeros(k.shape[-2], 1).to(k)
    chosen[positions] = 1
    return chosen.expand(k.shape)
