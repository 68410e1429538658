"""What the edits of a batch have in common, made once: inversions and masks, each with what it took
for a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from ...maps import FIELDS, NoiseMaps
from ...models.stable_diffusion import Pipeline, Words
from ..editing import Mode, mask_for, masked
from .methods import Cost, Inversion, cost
from .tasks import Task, Truth


class Shared:
    """A batch of tasks with its latents x0 (B, C, h, w)."""

    def __init__(self, model: Pipeline, truth: Truth, x0: Tensor):
        self.model, self.truth, self.x0 = model, truth, x0
        self._maps: dict[Inversion, tuple[NoiseMaps, Cost]] = {}
        self._masks: dict[Hashable, tuple[Tensor, Cost]] = {}

    def maps(self, inversion: Inversion, skip: int, first: int, mode: Mode) -> tuple[NoiseMaps, Cost]:
        """The maps from step ``skip`` on with the mode's mask, and their cost for a picture; the
        pictures are inverted from step ``first`` on."""
        sources, targets = (list(texts) for texts in zip(*(task.captions for task in self.truth.tasks)))
        if inversion not in self._maps:
            with cost(self.model) as inverting:
                maps = inversion.run(self.model, self.x0, sources, skip=first)
            self._maps[inversion] = maps, inverting * (1 / len(self.x0))
        maps, inverting = self._maps[inversion]
        share = (inversion.steps - skip) / len(maps.residuals)
        maps, taken = maps.skip(skip), inverting * share
        if mode.mask == "none":
            return maps, taken
        known = mode.mask, *((inversion, skip, mode.threshold, mode.softness, mode.grow) if mode.mask == "auto" else ())
        if known not in self._masks:
            with cost(self.model) as masking:
                chunk = max(1, 16 // len(self.x0))
                mask = mask_for(mode, self.model, maps, sources, targets, chunk=chunk)
            self._masks[known] = mask, masking * (1 / len(self.x0))
        mask, masking = self._masks[known]
        return masked(maps, mask), taken + masking


def of_items(maps: NoiseMaps, numbers: Sequence[int]) -> NoiseMaps:
    """The maps of some items of the batch."""
    tensors = maps.tensors().items()
    parts = {name: t[list(numbers)] if FIELDS[name].more is None else t[:, list(numbers)] for name, t in tensors}
    return dataclasses.replace(maps, **parts)


def directed(model: Pipeline, tasks: Sequence[Task]) -> Words:
    """The sources' captions, each moved along the direction of its edit."""
    moved = [model.moved(task.captions[0], *task.sentences) for task in tasks]
    return torch.cat([hidden for hidden, _ in moved]), None
