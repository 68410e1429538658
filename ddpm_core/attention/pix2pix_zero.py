"""pix2pix-zero (arXiv 2302.03027, Zero-shot Image-to-Image Translation): an edit along a direction
between sentences, and a step that leads the edit's cross-attention back to the source's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..checks import BadArgument

ARROW = "->"


def sentences(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sentences of the source and of the target, from a text with one a line and a line ``->``
    between them. Raises BadArgument."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    lines = [line for line in lines if line]
    if lines.count(ARROW) != 1:
        rule = f"A direction is a text of sentences, one a line, with one line {ARROW} between source and target"
        raise BadArgument("direction", f"{rule}; got {lines.count(ARROW)} such lines.")
    middle = lines.index(ARROW)
    sides = tuple(lines[:middle]), tuple(lines[middle + 1 :])
    if not all(sides):
        sizes = " and ".join(str(len(side)) for side in sides)
        raise BadArgument("direction", f"A direction needs a sentence or more on each side of {ARROW}; got {sizes}.")
    return sides


def direction(sources: Tensor, targets: Tensor) -> Tensor:
    """mean_j E(target sentence_j) - mean_j E(source sentence_j) (section 3.1), from embeddings
    (N, ...) and (M, ...): (1, ...)."""
    return targets.mean(0, keepdim=True) - sources.mean(0, keepdim=True)


def distance(maps: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
    """sum over layers, queries q and tokens w of mean over heads (A[q, w] - A_ref[q, w])^2 (eq. 4):
    maps (B, heads, Lq, Lk) of each layer -> (B,).

    A sum over the queries, not a mean: what a cell of the latent does to the attention around it
    is one share of the sum, however large the picture, and so the gradient at a cell does not
    depend on the picture's size. Each picture has its own sum (the published code takes the mean
    over a batch, where a picture moves less the more there are).
    """
    return sum((a - a_ref).square().mean(1).sum((1, 2)) for a, a_ref in zip(maps, references))
