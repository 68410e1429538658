"""What was measured, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ...models.stable_diffusion import Pipeline
from ..tables import markdown
from .timing import Row
from .ways import CHUNK

COLUMNS: dict[str, Callable[[Row], str]] = {
    "": lambda row: row.way,
    "steps / skip": lambda row: f"{row.steps} / {row.skip}",
    "cfg source / target": lambda row: f"{row.cfg_source:g} / {row.cfg:g}",
    "chunk": lambda row: str(row.chunk or "-"),
    "batch": lambda row: str(row.batch),
    "latent": lambda row: row.latent,
    "calls": lambda row: str(row.calls),
    "samples": lambda row: str(row.samples),
    "seconds": lambda row: "out of memory" if math.isnan(row.seconds) else f"{row.seconds:.3f}",
    "samples / s": lambda row: f"{row.samples / row.seconds:.2f}",
    "ratio": lambda row: f"{row.ratio:.3f}",
    "model": lambda row: f"{100 * row.model_share:.1f} %",
    "peak, MB": lambda row: "-" if row.peak_mb is None else f"{row.peak_mb:.1f}",
    "kept, MB": lambda row: f"{row.kept_mb:.2f}",
}


def findings(rows: list[Row]) -> str:
    """What the tables say of our own code, and of the chunk."""
    by_way = {row.way: row for row in rows if not math.isnan(row.seconds)}
    lines = []
    own = {way: 1 - row.model_share for way, row in by_way.items() if row.table == "way" and " ours, " in way}
    if own:
        worst = max(own, key=own.get)
        lines.append(f"Outside of the UNet: at most {100 * own[worst]:.1f} % of the seconds, in {worst}.")
    alone = [row.samples / row.seconds for row in by_way.values() if row.table == "the UNet alone"]
    ours = [row for way, row in by_way.items() if way.startswith("(b)")]
    if alone and ours:
        rate = ours[0].samples / ours[0].seconds
        lines.append(f"(b) takes {rate:.2f} samples a second, the UNet alone up to {max(alone):.2f}.")
    chunks = {row.chunk: row.seconds for row in by_way.values() if row.table == "chunk"}
    if CHUNK in chunks:
        best = min(chunks, key=chunks.get)
        most = f"chunk {CHUNK}, the most that the nodes' chunk 0 takes,"
        lines.append(f"The fastest is chunk {best}; {most} takes {chunks[CHUNK] / chunks[best]:.3f} times as long.")
    return "\n".join(f"- {line}" for line in lines)


def table(rows: list[Row]) -> str:
    """A row a case."""
    return markdown(list(COLUMNS), ([cell(row) for cell in COLUMNS.values()] for row in rows))


def header(model: Pipeline, name: str, repeat: int) -> str:
    """What was measured, on what, and how the columns are to be read."""
    unet = model.pipe.unet
    machine = f"{unet.device.type}, torch on {torch.get_num_threads()} threads"
    if unet.device.type == "cuda":
        machine = torch.cuda.get_device_name(unet.device)
    dtype, parameters = str(unet.dtype).removeprefix("torch."), sum(p.numel() for p in unet.parameters()) / 1e6
    return f"""# Time and memory of an edit

{machine}; torch {torch.__version__}, {dtype}; {name}, a UNet of {parameters:.0f} M parameters.

Each number is from one run on one machine: read the ratios, not the seconds. An edit is an inversion and one replay, \
text encoder and autoencoder left out.

- calls, samples: calls of the UNet, and the batch items in them.
- seconds: the median of the rounds ({repeat}), which go through the table row by row.
- ratio: the seconds for one picture, to those of the table's first row. model: the share of the seconds within the \
UNet.
- peak: memory at the worst moment of one more run, beyond what was in use before it (CUDA: what torch allocated; CPU: \
resident set, to about 10 MB).
- kept: the noise maps, or what (a) keeps in their place.
- samples / s: through the UNet, the time outside of it included; the UNet alone repeats one call and does nothing else.
- (a) inverts the whole path, one timestep and one guidance branch a call; (e) draws a new picture, both branches in \
one call."""
