"""The attention controls of an edit together, step by step and layer by layer, for whatever runs
the model: it hands over queries, keys and values, and adds what comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .local_blend import PART, Blending, LocalBlend
from .masactrl import Mutual
from .prompt_to_prompt import Attend, Control, cross_attention_change

Projections = tuple[Tensor, Tensor, Tensor]  # queries, keys, values: (..., L, D)


@dataclass(frozen=True)
class Layer:
    """An attention layer: how many queries it has, for a latent (H, W), and the share of the
    network's self-attention layers that lie before it."""

    cross: bool
    tokens: int
    latent: tuple[int, int]
    depth: float = 0.0

    def cells(self, part: int) -> int:
        """Of the latent at 1/part of its width and height."""
        return math.ceil(self.latent[0] / part) * math.ceil(self.latent[1] / part)


@dataclass(frozen=True)
class Taking:
    """What one step takes over from the source's row."""

    cross: tuple[Tensor, Tensor] | None = None  # coefficients of the words
    largest: int | None = None  # self-attention is the source's in layers of at most latent / largest
    mutual: Mutual | None = None
    blending: Blending | None = None

    def takes(self, layer: Layer) -> str:
        """What a layer needs of the source: queries and keys ("qk"), keys and values ("kv"), or
        nothing ("")."""
        if layer.cross:
            return "qk" if self.cross is not None or self._shows(layer) else ""
        if self.largest and layer.tokens <= layer.cells(self.largest):
            return "qk"
        return "kv" if self.mutual is not None and self.mutual.acts_in(layer.depth) else ""

    def change(self, attend: Attend, layer: Layer, source: Projections, target: Projections) -> Tensor | None:
        """What is added to the target's plain attention, (..., L, D); None for nothing. Of the
        source what ``takes`` says is read."""
        (q_s, k_s, v_s), (q, k, v) = source, target
        if not layer.cross:
            queries, keys, values = (q_s, k_s, v) if self.takes(layer) == "qk" else (q, k_s, v_s)
            return attend(queries, keys, values) - attend(q, k, v)
        if self.blending is not None and self._shows(layer):
            self.blending.add(attend, q_s, k_s, q, k, self.cross)
        return None if self.cross is None else cross_attention_change(attend, q_s, k_s, q, k, v, *self.cross)

    def _shows(self, layer: Layer) -> bool:
        """Whether the local blend reads a layer of cross-attention."""
        return self.blending is not None and layer.tokens == layer.cells(PART)


@dataclass(frozen=True)
class Controls:
    """What an edit takes over of the source's attention, and where it stays."""

    control: Control | None = None
    mutual: Mutual | None = None
    blend: LocalBlend | None = None

    def at(self, step: int, steps: int, blending: Blending | None = None) -> Taking | None:
        """What a step of ``steps`` executed ones takes over; None where the source is not asked. A
        local blend needs the source in every step: its maps add up."""
        in_cross, in_self = self.control.acts_at(step, steps) if self.control else (False, False)
        mutual = self.mutual if self.mutual is not None and self.mutual.acts_at(step, steps) else None
        if not (in_cross or in_self or mutual or blending):
            return None
        cross = self.control.coefficients(step, steps) if self.control and in_cross else None
        return Taking(cross, self.control.largest if self.control and in_self else None, mutual, blending)

    def start(self, steps: int, latent: tuple[int, int]) -> Blending | None:
        """The local blend of one run, where there is one."""
        return None if self.blend is None else Blending(self.blend, steps, latent)
