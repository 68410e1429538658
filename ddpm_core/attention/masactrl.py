"""MasaCtrl (arXiv 2304.08465, MasaCtrl: Tuning-Free Mutual Self-Attention Control): the edit keeps
its own layout and looks for its content in the source: softmax(q k_s^T) v_s in self-attention, from
a step and a layer on."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import BadArgument


@dataclass(frozen=True)
class Mutual:
    """When and where the keys and values of self-attention are the source's.

    start  share of the executed steps before it begins: until then the layout is free (published: 4
           of 50 steps)
    layer  share of the self-attention layers, in the order of the network, before it begins
           (published: 10 of 16)

    Raises BadArgument.
    """

    start: float = 0.08
    layer: float = 0.625

    def __post_init__(self):
        for name in ("start", "layer"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadArgument(name, f"{name} must be a share in [0, 1]; got {getattr(self, name):g}.")

    def acts_at(self, step: int, steps: int) -> bool:
        """Whether a step of ``steps`` executed ones is one of them."""
        return step >= self.start * steps

    def acts_in(self, depth: float) -> bool:
        """Whether a layer is one of them; ``depth`` is the share of the layers before it."""
        return depth >= self.layer
