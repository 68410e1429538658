"""Local blend of Prompt-to-Prompt (arXiv 2208.01626, Prompt-to-Prompt Image Editing with Cross
Attention Control, section 4, local editing): the picture changes only where chosen words are looked
at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import BadArgument
from .prompt_to_prompt import Attend, cross_attention, token_map, token_values
from .words import WordMap

PART = 4  # the maps are those of layers of 1/4 of the latent's width and height: 16 x 16 for 512 pixels


@dataclass(frozen=True)
class LocalBlend:
    """Which words say where, and from when on.

    words      the word map of both prompts
    chosen     words of the source, of the target, or of both: what is looked at under either prompt
               may change
    threshold  share of a map's largest value (published: 0.3)
    start      share of the executed steps before it begins (published: 0.2)

    Raises BadArgument.
    """

    words: WordMap
    chosen: Sequence[str]
    threshold: float = 0.3
    start: float = 0.2

    def __post_init__(self):
        for name in ("threshold", "start"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadArgument(name, f"{name} must be a share in [0, 1]; got {getattr(self, name):g}.")
        if not self.chosen:
            raise BadArgument("chosen", "A local blend needs at least one word; got none.")
        self.positions()

    def positions(self) -> tuple[list[int], list[int]]:
        """Of the chosen words in the source's and in the target's context."""
        found: tuple[list[int], list[int]] = ([], [])
        for word in self.chosen:
            errors = []
            for at, tokens in zip(found, (self.words.source, self.words.target)):
                try:
                    at += tokens.positions(word)
                except BadArgument as error:
                    errors.append(error)
            if len(errors) == 2:
                raise BadArgument("chosen", f"{errors[0]} The target's: {errors[1]}")
        return found


class Blending:
    """The mask of one run, from the attention of all of its steps so far.

    steps   executed steps of the run
    latent  (H, W)
    """

    def __init__(self, blend: LocalBlend, steps: int, latent: tuple[int, int]):
        self.blend, self.steps, self.latent = blend, steps, latent
        self.plane = tuple(math.ceil(side / PART) for side in latent)
        self.sums: list[Tensor | None] = [None, None]  # of the source's maps and of the target's, (B, 1, h, w)

    def add(
        self, attend: Attend, q_source: Tensor, k_source: Tensor, q: Tensor, k: Tensor, cross: tuple | None
    ) -> None:
        """The maps of one layer at one step: (..., L, D) as for ``prompt_to_prompt``. ``cross`` are
        the coefficients of the words, where the target's attention is edited."""
        of_source, of_target = self.blend.positions()
        theirs = token_map(attend, q_source, k_source, of_source)
        if cross is None:
            ours = token_map(attend, q, k, of_target)
        else:
            chosen = token_values(k, of_target)
            ours = cross_attention(attend, q_source, k_source, q, k, chosen, *cross).mean(-1)
        for i, tokens in enumerate((theirs, ours)):
            plane = tokens.float().reshape(len(tokens), -1, *self.plane).mean(1, keepdim=True)
            before = self.sums[i]
            self.sums[i] = plane if before is None else before + plane

    def mask(self, step: int) -> Tensor | None:
        """Where the picture may change after a step, (B, 1, H, W) of 0 and 1: pooled over 3 x 3
        cells, in the latent's size, above the threshold for the source's words or the target's.
        None before the blend begins, and while no step has looked at the words (a target that begins
        later). Raises BadArgument at the end, for a model where none ever did."""
        nothing = any(plane is None for plane in self.sums)
        if step < self.blend.start * self.steps or (nothing and step < self.steps - 1):
            return None
        masks = []
        for plane in self.sums:
            if plane is None:
                rule = f"A local blend needs cross-attention in layers of 1/{PART} of the latent's size"
                raise BadArgument("model", f"{rule}; this model has none.")
            whole = F.interpolate(F.max_pool2d(plane, 3, stride=1, padding=1), size=self.latent)
            masks.append(whole > self.blend.threshold * whole.amax((2, 3), keepdim=True))
        return torch.logical_or(*masks).float()
