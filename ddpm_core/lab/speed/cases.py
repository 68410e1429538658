"""What is measured, table by table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...models.stable_diffusion import Pipeline
from ...plan import Preset
from .ways import CHUNK, Way, authors, ours, sampling

CHUNKS = 1, 2, 4, 8, 16, 32
SIZES = 0.5, 1, 1.5, 2  # of the model's own latent
BATCHES = 1, 2, 4


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
        ],
        "chunk": [edit(f"chunk {chunk}", paper, x0, chunk) for chunk in CHUNKS],
        "latent size": [edit(f"latent {size}", fast, latent(size=size)) for size in sizes],
        "batch": [edit(f"batch {batch}", fast, latent(batch)) for batch in BATCHES],
    }
