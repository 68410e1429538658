"""Two edits of one scene at once, of the shape's colour and of the background, each beside the same
edit alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...demo.scenes import BACKGROUNDS, COLORS, Scene, caption, random_scene, render
from ...maps import NoiseMaps
from ...models.stable_diffusion import Edit, Pipeline
from ...replay import replay
from ..editing import Mode, mask_for, masked
from ..store import Row, Store
from ..tables import markdown, mean_and_error, number
from .edits import BATCH
from .methods import Inversion, cost, decoded
from .tables import gain
from .tasks import Task, candidates_of_kind

SKIP, CFG = 8, 5.0
PARTS = ("color", "background")
KEY = ("scene", "edit", "way")
MEASURES = ("success", "samples")
WAYS = {"alone, color": ("color",), "alone, background": ("background",), "together": PARTS}
SAMPLES = 12 * (1 + 2 + (2 + 2 + 3)) + 30  # of a scene, about: inversion, masks, edits, three decoded pictures


@dataclass(frozen=True)
class Pair:
    """A scene and what its color and background become."""

    source: Scene
    color: str
    background: str

    def target(self, parts: Sequence[str]) -> Scene:
        """The scene with some of the edits."""
        return replace(self.source, **{part: getattr(self, part) for part in parts})


def random_pairs(count: int, seed: int) -> list[Pair]:
    """``count`` pairs of edits of scenes drawn from one seed. No color meets its own background, with
    one edit or both."""
    generator = torch.Generator().manual_seed(seed)

    def choice(known, taken) -> str:
        values = [value for value in known if value not in taken]
        return values[int(torch.randint(len(values), (), generator=generator))]

    pairs = []
    for _ in range(count):
        source = random_scene(generator)
        color = choice(COLORS, (source.color, source.background))
        pairs.append(Pair(source, color, choice(BACKGROUNDS, (source.color, source.background, color))))
    return pairs


def measure(model: Pipeline, pairs: Sequence[Pair], store: Store, advance: Callable[[int], None]) -> None:
    """A row for every scene, edit and way that the store does not hold; ``advance`` hears of samples."""
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        wanted = ({"scene": start + i, "edit": part, "way": way} for i in range(len(batch)) for way, part in _judged())
        if not store.holds(wanted):
            store.append(_rows(model, start, batch))
        advance(SAMPLES * len(batch))


def _judged() -> Iterator[tuple[str, str]]:
    """Every way with each of its edits."""
    return ((way.partition(",")[0], part) for way, parts in WAYS.items() for part in parts)


def _rows(model: Pipeline, start: int, pairs: Sequence[Pair]) -> Iterator[Row]:
    sources = [caption(pair.source) for pair in pairs]
    targets = {part: [caption(pair.target([part])) for pair in pairs] for part in PARTS}
    x0 = model.encode(render([pair.source for pair in pairs]))
    with cost(model) as inverting:
        maps = Inversion().run(model, x0, sources, skip=SKIP)
    masks, masking = {}, {}
    for part in PARTS:
        with cost(model) as masking[part]:
            masks[part] = mask_for(Mode(CFG, mask="auto"), model, maps, sources, targets[part], chunk=2)
    for way, parts in WAYS.items():
        with cost(model) as editing:
            pictures = edited(model, maps, sources, [(targets[part], masks[part]) for part in parts])
        samples = (inverting + editing).samples + sum(masking[part].samples for part in parts)
        for part in parts:
            for i, (pair, picture) in enumerate(zip(pairs, pictures)):
                target = pair.target(parts)
                nearest = candidates_of_kind(Task(part, pair.source, target)).nearest(picture)
                measures = {"success": float(nearest == getattr(target, part)), "samples": samples / len(pairs)}
                yield {"scene": start + i, "edit": part, "way": way.partition(",")[0], **measures}


def edited(model: Pipeline, maps: NoiseMaps, sources: list[str], terms: Sequence[tuple[list[str], Tensor]]) -> Tensor:
    """Pictures of several edits at once, each a target with its mask, along maps of guidance 1; as
    ``latent_of_edits``, whose masks are made here once for all ways."""
    wanted = [Edit(target, CFG, mask) for target, mask in terms]
    maps = masked(maps, torch.stack([mask for _, mask in terms]).amax(0))
    return decoded(model, replay(model.denoiser_of_edits(sources, wanted, source_guidance=1.0), maps))


def table(rows: Sequence[Row]) -> str:
    """Success of each edit alone and together, and the difference scene by scene."""
    body = []
    for part in PARTS:
        alone, both = (
            {row["scene"]: row for row in rows if row["edit"] == part and row["way"] == way}
            for way in ("alone", "together")
        )
        mean, error = mean_and_error(both[scene]["success"] - alone[scene]["success"] for scene in both)
        cells = [part]
        for side in (alone, both):
            success = mean_and_error(row["success"] for row in side.values())
            cells.append(number(success[0], 0, success[1], 100))
        cells.append(gain(mean, error, 0, 100))
        cells += [number(mean_and_error(row["samples"] for row in side.values())[0], 0) for side in (alone, both)]
        body.append(cells)
    head = ["edit", "alone: success, %", "together: success, %", "difference, points"]
    return markdown([*head, "alone: UNet samples", "together: UNet samples"], body)
