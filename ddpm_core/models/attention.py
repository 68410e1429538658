"""Attention control in a diffusers UNet: processors that are lent for a call, around those that are
there, and given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.controls import Controls, Layer, Projections, Taking
from ..attention.local_blend import Blending
from ..attention.masactrl import Mutual
from ..attention.prompt_to_prompt import Control
from ..checks import BadArgument
from ..denoise import Denoise
from ..guidance import classifier_free, from_source
from ..maps import NoiseMaps
from .stable_diffusion import Pipeline, Prompt


def controlled(
    model: Pipeline,
    maps: NoiseMaps,
    source: Prompt,
    target: Prompt,
    *,
    control: Control | None = None,
    mutual: Mutual | None = None,
    blending: Blending | None = None,
    guidance: float,
    source_guidance: float | None = None,
    negative: str = "",
) -> Denoise:
    """A denoiser for a replay of ``maps`` in which the target's row takes over attention of the
    source's.

    The source's row runs on the stored path, so its state is known whatever the edit does, and it
    runs only in steps where something is taken over; its guidance only mattered for the residuals,
    which are stored. With ``source_guidance`` the edit is guided from the source
    (``guidance.from_source``), else from the negative prompt.

    blending  the local blend of this run, whose ``mask`` is the replay's ``local``
    """
    words = {name: model.embed(text) for name, text in (("s", source), ("t", target), ("u", negative))}
    if source_guidance is None:
        names = ["t"] if guidance == 1 else ["u", "t"]
    else:
        names = ["s", "t"] if source_guidance == 1 else ["u", "s", "t"]
    steps, controls = len(maps.residuals), Controls(control, mutual)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        step = maps.step_at(sigma)
        taking = controls.at(step, steps, blending)
        rows = [(x, words[name]) for name in names]
        if taking is not None:
            rows = [(maps.latents[step].to(x), words["s"]), *rows]
            with _changed(model.pipe.unet, taking, x.shape):
                predictions = model.ask(rows, sigma)[1:]
        else:
            predictions = model.ask(rows, sigma)
        by_name = dict(zip(names, predictions))
        s, t, u = (by_name.get(name) for name in "stu")
        if source_guidance is None:
            return t if u is None else classifier_free(u, t, guidance)
        return from_source(s if u is None else classifier_free(u, s, source_guidance), s, t, guidance)

    return denoise


@contextmanager
def lent(unet, wrap: Callable[[str, Any], Any]) -> Iterator[None]:
    """The UNet with processors made by ``wrap(name, its own)``; it gets its own back whatever
    happens."""
    before = dict(unet.attn_processors)
    try:
        unet.set_attn_processor({name: wrap(name, inner) for name, inner in before.items()})
        yield
    finally:
        unet.set_attn_processor(before)


def _changed(unet, taking: Taking, shape: torch.Size):
    """The UNet with processors of our own around its own, for a call whose first rows are the
    source's and whose last ones are the target's, ``shape`` (B, C, h, w) each."""
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    layers = sorted((n for n in unet.attn_processors if ".attn1." in n), key=lambda name: order[name.split(".")[0]])

    def changed(name: str, inner) -> _Processor:
        return _Processor(inner, taking, shape, layers.index(name) / len(layers) if name in layers else None)

    return lent(unet, changed)


class _Processor(torch.nn.Module):
    """The attention that another processor computes, changed in the target's rows."""

    def __init__(self, inner, taking: Taking, shape: torch.Size, depth: float | None):
        super().__init__()
        self.inner, self.taking, self.depth = inner, taking, depth  # depth: None in cross-attention
        self.pictures, self.latent = shape[0], tuple(shape[-2:])

    def forward(self, attn, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args, **kwargs):
        out = self.inner(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        if hidden_states.dim() != 3 or attn.group_norm is not None or attn.norm_cross:
            raise BadArgument("model", f"Attention control needs transformer blocks; this layer is {attn}.")
        change = self._change(attn, hidden_states, encoder_hidden_states)
        if change is None:
            return out
        out = out.clone()
        out[-self.pictures :] += F.linear(change, attn.to_out[0].weight) / attn.rescale_output_factor
        return out

    def _change(self, attn, x: Tensor, context: Tensor | None) -> Tensor | None:
        """What is added to the target's attention before its output projection, (B, L, C); None for
        nothing."""
        layer = Layer(self.depth is None, x.shape[1], self.latent, self.depth or 0.0)
        if not self.taking.takes(layer):
            return None

        def projected(rows: slice) -> Projections:
            keys = x[rows] if context is None else context[rows]
            parts = (attn.to_q(x[rows]), attn.to_k(keys), attn.to_v(keys))
            return tuple(part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in parts)

        source, target = projected(slice(0, self.pictures)), projected(slice(len(x) - self.pictures, None))
        change = self.taking.change(F.scaled_dot_product_attention, layer, source, target)
        return None if change is None else change.transpose(1, 2).flatten(2)
