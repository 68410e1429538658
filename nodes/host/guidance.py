"""Guidance from the source prompt to one target prompt, or to several, as a guider of ComfyUI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import comfy.samplers
import torch
from torch import Tensor

from ...ddpm_core.guidance import Term, classifier_free, several
from .batching import is_stock_guider

ROUNDING = 1e-4  # of a noise level
OWNER = "noise_maps_edit"  # a prompt's entry that says which edit it came with; ComfyUI's copies of it for others too
FAINT = 1e-6  # strength of the source where an edit has words of its own: it counts where there are none
PARTS = ("area", "mask", "timestep_start", "timestep_end")  # what an entry has that is not everywhere, or always


class Edit(NamedTuple):
    """One edit of those that a guider brings in at once."""

    prompt: list  # CONDITIONING
    scale: float  # below 0: less of what the prompt adds to the source's
    mask: Tensor | None = None  # (1 or B, 1, *S): where
    sigmas: tuple[float, float] = (0.0, math.inf)  # the lowest and the highest noise level of its steps


class SourceGuider(comfy.samplers.CFGGuider):
    """base + sum_i w_i M_i (t_i - s) (``ddpm_core.guidance.several``): the base is what a CFGGuider
    with the source prompt and ``source_cfg`` gives, with all that patches do to it, so that the
    picture comes back where the targets are the source, or their strengths 0.

    A row a latent for the source and for each edit that is at work, and one for the negative prompt
    where ``source_cfg`` is not 1. ``region`` is where any of the edits works, None for everywhere.

    To ComfyUI the source is the positive prompt: what it spreads from there to all prompts (a
    ControlNet of the old kind) the inversion had too. Areas of the edits, which it spreads as well,
    are left out of the base; an edit is compared with the source's words in the same areas, and
    where it has none it does not act.
    """

    def set_edits(self, source, negative, source_cfg: float, edits: Sequence[Edit]) -> None:
        self.names = [f"edit {i}" for i in range(1, len(edits) + 1)]
        prompts = {name: _owned(edit.prompt, name) for name, edit in zip(self.names, edits)}
        self.inner_set_conds({**prompts, "negative": negative, "positive": source})
        self.source_cfg, self.edits = source_cfg, list(edits)
        masks = [edit.mask for edit in edits if edit.scale]  # an edit of strength 0 changes nothing
        everywhere = not masks or any(mask is None for mask in masks)
        self.region = None if everywhere else reduce(torch.maximum, masks)

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options=None, seed=None) -> Tensor:
        options, level = model_options or {}, timestep.max().item()
        source, negative = (_without_edits(self.conds[name]) for name in ("positive", "negative"))
        if math.isclose(self.source_cfg, 1.0) and not options.get("disable_cfg1_optimization", False):
            negative = None  # as ComfyUI leaves it out
        at_work = [(name, edit) for name, edit in zip(self.names, self.edits) if _works(edit, level)]
        pairs = [self._words(name) for name, _ in at_work]
        prompts = [prompt for pair in pairs for prompt in pair if prompt is not None]
        if reads_branches(options):
            s, u = ask(self.inner_model, [source, negative], x, timestep, options)
            predictions = [ask(self.inner_model, [prompt, negative], x, timestep, options)[0] for prompt in prompts]
        else:
            s, u, *predictions = ask(self.inner_model, [source, negative, *prompts], x, timestep, options)
        told, targets = iter(predictions), []
        for _, theirs in pairs:
            t = next(told)
            targets.append(t if theirs is None else s + (t - next(told)))
        base = [s, u]
        settings = {"model": self.inner_model, "model_options": options, "cond_scale": self.source_cfg}
        for function in options.get("sampler_pre_cfg_function", []):
            where = {"input": x, "timestep": timestep, "sigma": timestep}
            base = function({"conds": [source, negative], "conds_out": base, **where, **settings})
        names = {"model_options": options, "cond": source, "uncond": negative}
        base = comfy.samplers.cfg_function(self.inner_model, *base[:2], self.source_cfg, x, timestep, **names)
        masks = [None if edit.mask is None else edit.mask.to(x) for _, edit in at_work]
        terms = [Term(t, edit.scale, mask) for t, (_, edit), mask in zip(targets, at_work, masks)]
        return several(base, s, terms)

    def _words(self, name: str) -> tuple[list[dict], list[dict] | None]:
        """An edit's prompt, and the source's words where it has some; None for those of all."""
        source = _without_edits(self.conds["positive"])
        own = [entry for entry in self.conds[name] if entry.get(OWNER, name) == name]
        copies = [entry for entry in self.conds["positive"] if entry.get(OWNER) == name]
        rest = source
        if all(any(part in entry for part in PARTS) for entry in own if OWNER in entry):
            rest = [{**entry, "strength": FAINT * entry.get("strength", 1.0)} for entry in source]
            own += rest
        return own, [*copies, *rest] if copies else None


def ask(inner_model, prompts: list, x: Tensor, timestep: Tensor, options: dict) -> list[Tensor]:
    """x0_hat under each of a running guider's prompts, in the way that the options want."""
    if "sampler_calc_cond_batch_function" in options:
        request = {"conds": prompts, "input": x, "sigma": timestep, "model": inner_model}
        return options["sampler_calc_cond_batch_function"]({**request, "model_options": options})
    return comfy.samplers.calc_cond_batch(inner_model, prompts, x, timestep, options)


class ScaledGuider(comfy.samplers.CFGGuider):
    """Classifier-free guidance with a scale for each row of a call, in ``scales`` (N, 1, ..., 1)."""

    scales: Tensor

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options=None, seed=None) -> Tensor:
        prompts = [self.conds["positive"], self.conds["negative"]]
        t, u = comfy.samplers.calc_cond_batch(self.inner_model, prompts, x, timestep, model_options or {})
        return classifier_free(u, t, self.scales.to(x))


def scaled_guider(model, positive, negative) -> ScaledGuider:
    """For prompts and models without anything that ``one_timestep_a_call`` knows: no function of
    others sees the two branches."""
    guider = ScaledGuider(model)
    guider.set_conds(positive, negative)
    return guider


def reads_branches(options: dict) -> bool:
    """Whether patches may ask which guidance branch a row belongs to, or want both in a call: they
    know two, and each prompt is then asked in a call of its own, as the first of them, beside the
    negative prompt."""
    transformer = options.get("transformer_options", {})
    patched = any(transformer.get(key) for key in ("patches", "patches_replace"))
    return patched or "sampler_calc_cond_batch_function" in options


def _owned(prompt: list, name: str) -> list:
    return [[embedding, {**entry, OWNER: name}] for embedding, entry in prompt]


def _without_edits(prompt: list[dict]) -> list[dict]:
    """A running guider's prompt without the entries that stand for an edit's areas."""
    return [entry for entry in prompt if OWNER not in entry]


def guidance_of(guider) -> float | None:
    """The classifier-free guidance of a stock guider with a positive and a negative prompt, or a
    positive one alone; None for others, whose base is not known."""
    prompts = set(guider.original_conds)
    return guider.cfg if is_stock_guider(guider) and prompts <= {"positive", "negative"} else None


def source_guider(model, source, negative, source_cfg: float, edits: Sequence[Edit]) -> SourceGuider:
    guider = SourceGuider(model)
    guider.set_edits(source, negative, source_cfg, edits)
    return guider


def _works(edit: Edit, level: float) -> bool:
    """Whether an edit is at work at a noise level, which a model's run has rounded to float32."""
    low, high = edit.sigmas
    return edit.scale != 0 and low * (1 - ROUNDING) <= level <= high * (1 + ROUNDING)
