"""Attention control in a diffusers UNet: processors that are lent for a call, around those that are
there, and given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.masactrl import Mutual
from ..attention.prompt_to_prompt import Control, cross_attention_change
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
    """
    words = {name: model.embed(text) for name, text in (("s", source), ("t", target), ("u", negative))}
    if source_guidance is None:
        names = ["t"] if guidance == 1 else ["u", "t"]
    else:
        names = ["s", "t"] if source_guidance == 1 else ["u", "s", "t"]
    levels, steps = maps.sigmas[:-1], len(maps.residuals)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        step = int((levels - sigma[0].cpu().double()).abs().argmin())
        work = _work_at(step, steps, x, control, mutual)
        rows = [(x, words[name]) for name in names]
        if work is not None:
            rows = [(maps.latents[step].to(x), words["s"]), *rows]
            with _changed(model.pipe.unet, work):
                predictions = model.ask(rows, sigma)[1:]
        else:
            predictions = model.ask(rows, sigma)
        by_name = dict(zip(names, predictions))
        s, t, u = (by_name.get(name) for name in "stu")
        if source_guidance is None:
            return t if u is None else classifier_free(u, t, guidance)
        return from_source(s if u is None else classifier_free(u, s, source_guidance), s, t, guidance)

    return denoise


@dataclass(frozen=True)
class _Work:
    """What is taken over in one call, whose first rows are the source's and whose last rows the
    target's."""

    pictures: int  # rows of the source, and of the target
    latent: tuple[int, int]
    cross: tuple[Tensor, Tensor] | None  # coefficients of the words
    largest: int | None  # self-attention is the source's in layers of at most latent / largest
    mutual: Mutual | None


def _work_at(step: int, steps: int, x: Tensor, control: Control | None, mutual: Mutual | None) -> _Work | None:
    in_cross, in_self = control.acts_at(step, steps) if control else (False, False)
    in_mutual = mutual is not None and mutual.acts_at(step, steps)
    if not (in_cross or in_self or in_mutual):
        return None
    cross = control.coefficients(step, steps) if in_cross else None
    return _Work(
        len(x), tuple(x.shape[-2:]), cross, control.largest if in_self else None, mutual if in_mutual else None
    )


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


def _changed(unet, work: _Work):
    """The UNet with processors of our own around its own, for a call."""
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    layers = sorted((n for n in unet.attn_processors if ".attn1." in n), key=lambda name: order[name.split(".")[0]])

    def changed(name: str, inner) -> _Processor:
        return _Processor(inner, work, layers.index(name) / len(layers) if name in layers else None)

    return lent(unet, changed)


class _Processor(torch.nn.Module):
    """The attention that another processor computes, changed in the target's rows."""

    def __init__(self, inner, work: _Work, depth: float | None):
        super().__init__()
        self.inner, self.work, self.depth = inner, work, depth  # depth: share of the self-attention layers before this

    def forward(self, attn, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args, **kwargs):
        out = self.inner(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        if hidden_states.dim() != 3 or attn.group_norm is not None or attn.norm_cross:
            raise BadArgument("model", f"Attention control needs transformer blocks; this layer is {attn}.")
        change = self._change(attn, hidden_states, encoder_hidden_states)
        if change is None:
            return out
        out = out.clone()
        out[-self.work.pictures :] += F.linear(change, attn.to_out[0].weight) / attn.rescale_output_factor
        return out

    def _change(self, attn, x: Tensor, context: Tensor | None) -> Tensor | None:
        """What is added to the target's attention before its output projection, (B, L, C); None for
        nothing."""
        work = self.work
        ours, theirs = slice(len(x) - work.pictures, None), slice(0, work.pictures)

        def heads(tensor: Tensor) -> Tensor:
            return tensor.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        def projected(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
            keys = x[rows] if context is None else context[rows]
            return heads(attn.to_q(x[rows])), heads(attn.to_k(keys)), heads(attn.to_v(keys))

        attend = F.scaled_dot_product_attention
        if self.depth is None:
            if work.cross is None:
                return None
            (q_s, k_s, _), (q, k, v) = projected(theirs), projected(ours)
            taken, own = (part.to(v) for part in work.cross)
            change = cross_attention_change(attend, q_s, k_s, q, k, v, taken, own)
        else:
            as_source = work.largest and x.shape[1] <= (work.latent[0] * work.latent[1]) // work.largest**2
            mutual = work.mutual is not None and work.mutual.acts_in(self.depth)
            if not as_source and not mutual:
                return None
            (q_s, k_s, v_s), (q, k, v) = projected(theirs), projected(ours)
            queries, keys, values = (q_s, k_s, v) if as_source else (q, k_s, v_s)
            change = attend(queries, keys, values) - attend(q, k, v)
        return change.transpose(1, 2).flatten(2)
