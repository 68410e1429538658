"""Edits of drawn scenes, whose true results are known, and how well a picture matches the truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ...demo.judge import ATTRIBUTES
from ...demo.scenes import BACKGROUNDS, COLORS, FILLS, SHAPES, SIZE, Scene, candidates, caption, random_scene, render
from ...measure.metrics import psnr, ssim

KINDS = ("color", "background", "shape", "fill")
_VALUES = {"shape": tuple(SHAPES), "fill": tuple(FILLS), "color": tuple(COLORS), "background": tuple(BACKGROUNDS)}
_EVERY = list(itertools.product(*(_VALUES[name] for name in ATTRIBUTES)))  # in the order of ``candidates``
_GRID = 48  # pixels a side at which a picture is compared with the candidates
_COARSE = 32  # the same where they are many
# Where a new shape or fill may lie, against the source's geometry: what was never drawn has no
# place of its own yet.
_TURNS, _SCALES, _MOVES = (-0.5, -0.25, 0.0, 0.25, 0.5), (0.85, 1.0, 1.15), (-0.03, 0.0, 0.03)
_SAME = 1 / 255  # source and true target agree where no channel differs by more
_SENTENCES = 12  # a side, of a direction
_SHADES, _APART = (0.4, 1.05), 0.07  # a ground in its shadow, and how far from it a pixel is the object's


@dataclass(frozen=True)
class Task:
    """One edit: the source scene, and the same scene with one attribute (``kind``) changed."""

    kind: str
    source: Scene
    target: Scene

    @property
    def captions(self) -> tuple[str, str]:
        """What the source shows and what the target shows."""
        return caption(self.source), caption(self.target)

    @property
    def sentences(self) -> tuple[list[str], list[str]]:
        """Captions of other scenes with the attribute as in the source, and the same ones as in the
        target: what the direction of the edit is made of."""
        generator = torch.Generator().manual_seed(0)
        values, pairs = [getattr(scene, self.kind) for scene in (self.source, self.target)], []
        while len(pairs) < _SENTENCES:
            scene = random_scene(generator)
            pair = [replace(scene, **{self.kind: value}) for value in values]
            captions = [caption(scene) for scene in pair]
            if all(scene.color != scene.background for scene in pair) and captions not in pairs:
                pairs.append(captions)
        sources, targets = zip(*pairs)
        return list(sources), list(targets)


def random_tasks(count: int, seed: int) -> list[Task]:
    """``count`` edits of scenes drawn from one seed, the four kinds in turn. Shape and background
    never get one colour name, which captions of the training set never had."""
    generator = torch.Generator().manual_seed(seed)
    tasks = []
    for kind, _ in zip(itertools.cycle(KINDS), range(count)):
        source = random_scene(generator)
        taken = {getattr(source, kind), source.color, source.background}
        values = [value for value in _VALUES[kind] if value not in taken]
        value = values[int(torch.randint(len(values), (), generator=generator))]
        tasks.append(Task(kind, source, replace(source, **{kind: value})))
    return tasks


class Truth:
    """What a batch of tasks is judged by: the true pictures and every drawn candidate."""

    def __init__(self, tasks: Sequence[Task]):
        self.tasks = list(tasks)
        self.sources = render([task.source for task in tasks])  # (B, 3, 192, 192)
        self.targets = render([task.target for task in tasks])
        change = (self.sources - self.targets).abs().amax(1, keepdim=True)
        self.same = (change <= _SAME).float()  # (B, 1, 192, 192): what an edit must keep
        self.values = [candidates_of_kind(task) for task in tasks]
        self.grounds = render([replace(task.target, x=-9.0) for task in tasks])  # without the shape
        self.forms = _object(self.sources, render([replace(task.source, x=-9.0) for task in tasks]))

    @cached_property
    def all_values(self) -> list[Candidates]:
        """All 2048 candidates of every task, 57 MB each."""
        return [Candidates(_EVERY, candidates(task.source, _GRID).flatten(0, 3)) for task in self.tasks]

    def succeeds(self, pictures: Tensor, which: Sequence[int] | None = None) -> list[bool]:
        """``success`` of ``score``."""
        which = range(len(self.tasks)) if which is None else which
        return [
            self.values[i].nearest(picture) == getattr(self.tasks[i].target, self.tasks[i].kind)
            for i, picture in zip(which, pictures)
        ]

    def form_iou(self, pictures: Tensor, which: Sequence[int] | None = None) -> list[float]:
        """``form_iou`` of ``score``."""
        which = list(range(len(self.tasks)) if which is None else which)
        found, forms = _object(pictures, self.grounds[which]), self.forms[which]
        shares = (found & forms).sum((1, 2)) / (found | forms).sum((1, 2)).clamp(min=1)
        return [
            share if self.tasks[i].kind in ("color", "fill") else math.nan for i, share in zip(which, shares.tolist())
        ]

    def score(self, pictures: Tensor, which: Sequence[int] | None = None) -> list[dict[str, float]]:
        """Measures of pictures (B, 3, 192, 192) in [0, 1], one dict a task; ``which`` are the tasks'
        numbers (default: all).

        success      1 where the nearest of the candidates that differ in the edited attribute alone
                     is the target; a new shape or fill may be turned, scaled and moved a little, as
                     a source says nothing of that
        exact        1 where the nearest of all 2048 candidates (every shape, fill, color and
                     background), exactly in the source's place, is the target
        kept_psnr    dB, where source and true target agree
        kept_ssim    against the true target, there; its windows reach 5 pixels over the border
        target_psnr  dB, to the true target, everywhere
        form_iou     for a new colour or fill: how much what is not ground lies where it does in the
                     source, intersection over union
        """
        which = list(range(len(self.tasks)) if which is None else which)
        targets, same = self.targets[which], self.same[which]
        wanted = [tuple(getattr(self.tasks[i].target, name) for name in ATTRIBUTES) for i in which]
        measures = {
            "success": [float(success) for success in self.succeeds(pictures, which)],
            "exact": [
                float(self.all_values[i].nearest(picture) == values)
                for i, picture, values in zip(which, pictures, wanted)
            ],
            "kept_psnr": psnr(pictures, targets, same).tolist(),
            "kept_ssim": ssim(pictures, targets, same).tolist(),
            "target_psnr": psnr(pictures, targets).tolist(),
            "form_iou": self.form_iou(pictures, which),
        }
        return [dict(zip(measures, values)) for values in zip(*measures.values())]


def _object(pictures: Tensor, grounds: Tensor) -> Tensor:
    """Which cells of a coarse grid show no ground, in whatever shadow: (B, h, h); both (B, 3, H,
    W)."""
    pictures, grounds = (F.avg_pool2d(part, SIZE // _GRID) for part in (pictures, grounds))
    shade = ((pictures * grounds).sum(1) / grounds.square().sum(1)).clamp(*_SHADES)
    return (pictures - shade[:, None] * grounds).norm(dim=1) > _APART


class Candidates:
    """Drawings (N, 3, h, h), each with its name."""

    def __init__(self, names: Sequence, drawings: Tensor):
        self.names, self.side = names, drawings.shape[-1]
        self.drawings = drawings.flatten(1)
        self.energy = self.drawings.square().sum(1)

    def nearest(self, picture: Tensor):
        """The name of the drawing with the least squared distance to a picture (3, 192, 192)."""
        small = F.avg_pool2d(picture, SIZE // self.side).flatten()
        return self.names[int((self.energy - 2 * self.drawings @ small).argmin())]


def candidates_of_kind(task: Task) -> Candidates:
    """The target under every value of the edited attribute."""
    values = _VALUES[task.kind]
    scenes = [replace(task.target, **{task.kind: value}) for value in values]
    if task.kind in ("shape", "fill"):
        places = list(itertools.product(_TURNS, _SCALES, _MOVES, _MOVES))
        scenes = [
            replace(s, angle=s.angle + turn, radius=s.radius * scale, x=s.x + right, y=s.y + down)
            for s in scenes
            for turn, scale, right, down in places
        ]
        values = [value for value in values for _ in places]
    return Candidates(values, render(scenes, _COARSE))
