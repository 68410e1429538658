"""What is measured, table by table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...models.stable_diffusion import Pipeline
from ...plan import TURBO, Preset
from .ways import CHUNK, Way, authors, masked, ours, sampling, several, turbo, unet_alone

CHUNKS = 1, 2, 4, 8, 16, 32
SIZES = 0.5, 1, 1.5, 2  # of the model's own latent
BATCHES = 1, 2, 4
EDITS = 4  # of one inversion


class Case(NamedTuple):
    """One row to be measured."""

    way: str
    preset: Preset
    x0: Tensor  # (B, C, *S)
    run: Way
    chunk: int | None = None


def evaluations(preset: Preset) -> int:
    """Batch items through the model for one edit by ``ours``."""
    return (preset.steps - preset.skip) * (branches(preset.guidance_source) + branches(preset.guidance_target))


def branches(guidance: float) -> int:
    """What ``Pipeline.denoiser`` evaluates for one latent."""
    return 1 if guidance in (0, 1) else 2


def tables(model: Pipeline, presets: Mapping[str, Preset]) -> dict[str, list[Case]]:
    """All that is measured; the first row of a table is what its ratios refer to."""
    own, channels = model.pipe.unet.config.sample_size, model.pipe.unet.config.in_channels
    paper, fast = presets["quality"], presets["fast"]

    def latent(batch: int = 1, size: int = own) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, channels, size, size, generator=generator).to(model.device)

    def edit(way: str, preset: Preset, x0: Tensor, chunk: int = CHUNK) -> Case:
        return Case(way, preset, x0, ours(model, x0, preset, chunk), chunk)

    def plain(way: str, like: Preset, x0: Tensor) -> Case:
        guidance = like.guidance_target
        steps = math.ceil(evaluations(like) / branches(guidance))
        return Case(way, Preset(steps, 0, guidance, guidance), x0, sampling(model, x0, steps, guidance))

    sizes = [int(own * factor) for factor in SIZES]
    x0, cheap = latent(), dataclasses.replace(paper, guidance_source=1.0)
    return {
        "way": [
            Case("(a) the authors' way", paper, x0, authors(model, x0, paper)),
            edit("(b) ours, the same settings", paper, x0),
            edit("(c) ours, source guidance 1", cheap, x0),
            edit("(d) ours, the fast preset", fast, x0),
            plain("(e) sampling, samples as (b)", paper, x0),
            plain("(e) sampling, samples as (d)", fast, x0),
            Case("(f) ours, the turbo preset", TURBO, x0, turbo(model, x0), CHUNK),
            Case("(g) ours, fast, with its mask", fast, x0, masked(model, x0, fast), CHUNK),
        ],
        "chunk": [edit(f"chunk {chunk}", paper, x0, chunk) for chunk in CHUNKS],
        "latent size": [edit(f"latent {size}", fast, latent(size=size)) for size in sizes],
        "edits of one inversion": [
            Case(f"{EDITS} edits, {a_call} a call", fast, x0, several(model, x0, fast, EDITS, a_call), CHUNK)
            for a_call in (1, EDITS)
        ],
        "the UNet alone": [
            Case(f"{a_call} a call", Preset(CHUNKS[-1] // a_call, 0, 1.0, 1.0), x0, run, a_call)
            for a_call in CHUNKS
            for run in (unet_alone(model, x0, CHUNKS[-1], a_call),)
        ],
        "batch": [edit(f"batch {batch}", fast, latent(batch)) for batch in BATCHES],
    }
