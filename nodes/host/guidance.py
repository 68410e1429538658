"""Guidance from the source prompt to the target prompt, as a guider of ComfyUI."""

from __future__ import annotations

import math

import comfy.samplers
from torch import Tensor

from ...ddpm_core.guidance import from_source
from .batching import is_stock_guider


class SourceGuider(comfy.samplers.CFGGuider):
    """base + w (t - s) (``ddpm_core.guidance.from_source``): the base is what a CFGGuider with the
    source prompt and ``source_cfg`` gives, with all that patches do to it, so that the picture
    comes back where the target is the source.

    Two rows a latent where ``source_cfg`` is 1, else three.
    """

    def set_prompts(self, source, target, negative) -> None:
        self.inner_set_conds({"positive": target, "negative": negative, "source": source})

    def set_guidance(self, cfg: float, source_cfg: float) -> None:
        self.cfg, self.source_cfg = cfg, source_cfg

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options=None, seed=None) -> Tensor:
        options = model_options or {}
        target, source, negative = (self.conds[name] for name in ("positive", "source", "negative"))
        if math.isclose(self.source_cfg, 1.0) and not options.get("disable_cfg1_optimization", False):
            negative = None  # as ComfyUI leaves it out
        if _reads_branches(options):
            s, u = self._ask([source, negative], x, timestep, options)
            (t,) = self._ask([target], x, timestep, options)
        else:
            s, u, t = self._ask([source, negative, target], x, timestep, options)
        base = [s, u]
        settings = {"model": self.inner_model, "model_options": options, "cond_scale": self.source_cfg}
        for function in options.get("sampler_pre_cfg_function", []):
            where = {"input": x, "timestep": timestep, "sigma": timestep}
            base = function({"conds": [source, negative], "conds_out": base, **where, **settings})
        names = {"model_options": options, "cond": source, "uncond": negative}
        base = comfy.samplers.cfg_function(self.inner_model, *base[:2], self.source_cfg, x, timestep, **names)
        return from_source(base, s, t, self.cfg)

    def _ask(self, prompts: list, x: Tensor, timestep: Tensor, options: dict) -> list[Tensor]:
        if "sampler_calc_cond_batch_function" in options:
            request = {"conds": prompts, "input": x, "sigma": timestep, "model": self.inner_model}
            return options["sampler_calc_cond_batch_function"]({**request, "model_options": options})
        return comfy.samplers.calc_cond_batch(self.inner_model, prompts, x, timestep, options)


def _reads_branches(options: dict) -> bool:
    """Whether patches in the transformer may ask which guidance branch a row belongs to: they know
    two, and the target is then asked in a call of its own, as the first of them."""
    transformer = options.get("transformer_options", {})
    return any(transformer.get(key) for key in ("patches", "patches_replace"))


def guidance_of(guider) -> float | None:
    """The classifier-free guidance of a stock guider with a positive and a negative prompt, or a
    positive one alone; None for others, whose base is not known."""
    prompts = set(guider.original_conds)
    return guider.cfg if is_stock_guider(guider) and prompts <= {"positive", "negative"} else None


def source_guider(model, source, target, negative, cfg: float, source_cfg: float) -> SourceGuider:
    guider = SourceGuider(model)
    guider.set_prompts(source, target, negative)
    guider.set_guidance(cfg, source_cfg)
    return guider
