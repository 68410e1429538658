"""A guider's run with work of our own in the place of a sampler: LoRAs, ControlNets, hooks,
previews, interrupts and offloading come from ComfyUI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import comfy.model_management
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...ddpm_core.denoise import Callback, Denoise

Result = TypeVar("Result")


@dataclass(frozen=True)
class Running:
    """What work has to go by: the guider's denoiser, and what the guider was asked for."""

    guider: comfy.samplers.CFGGuider
    options: dict  # the run's model options
    denoise: Denoise  # with model options as a third argument: these instead of the run's own
    latent: Tensor  # (B, C, *S) in the model's space, on its device
    sigmas: Tensor  # (T+1,)
    mask: Tensor | None  # (B, 1, *S): the noise mask on the LATENT wire
    report: Callback


def make_guider(model, positive, negative, cfg: float) -> comfy.samplers.CFGGuider:
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider


def progress(model, steps: int) -> Callable:
    """ComfyUI's progress bar and preview of the running node, as a sampler's callback."""
    import latent_preview

    callback = latent_preview.prepare_callback(model, steps)
    seen = getattr(model.get_model_object("latent_format"), "for_preview", None)  # the demo model's
    if seen is None:
        return callback
    return lambda index, x0_hat, x, total: callback(index, seen(x0_hat), x, total)


def run(
    guider,
    latent: Tensor,
    sigmas: Tensor,
    work: Callable[[Running], Result],
    seed: int,
    mask: Tensor | None = None,
    callback: Callable | None = None,
) -> Result:
    """What ``work`` returns within a guider's run on a latent (B, C, *S), as on LATENT wires;
    ``callback`` as for ``sample``."""
    aside = _Aside(work)
    sample(guider, latent, sigmas, aside, seed, mask, callback)
    return aside.result


def sample(
    guider,
    latent: Tensor,
    sigmas: Tensor,
    sampler: comfy.samplers.Sampler,
    seed: int,
    mask: Tensor | None = None,
    callback: Callable | None = None,
) -> Tensor:
    """Run a sampler as SamplerCustomAdvanced does; latent (B, C, *S) as on LATENT wires, and so is
    the result, on the intermediate device.

    mask      (B, 1, *S), for the model alone: one that was made for inpainting has it among its
              inputs. What lies outside of it is kept by maps and replay, which have a mask of
              their own, since ComfyUI's blend is a part of its samplers.
    callback  a sampler's callback of the caller's own instead of a progress bar over this run
    """
    out = guider.sample(
        torch.zeros_like(latent),
        latent,
        sampler,
        sigmas.float(),
        denoise_mask=mask,
        callback=callback or progress(guider.model_patcher, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return out.to(comfy.model_management.intermediate_device())


def on_wires(latent: Tensor, model) -> Tensor:
    """What work has made in the model's space, as ``sample`` gives it."""
    out = model.get_model_object("latent_format").process_out(latent.float())
    return out.to(comfy.model_management.intermediate_device())


class GuidedRun(comfy.samplers.Sampler):
    """A sampler whose work returns the clean latent, in the model's space."""

    def __init__(self, work: Callable[[Running], Tensor]):
        self.work = work

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, *args, **kwargs
    ):
        total = len(sigmas) - 1

        def denoise(x: Tensor, sigma: Tensor, options: dict | None = None) -> Tensor:
            comfy.model_management.throw_exception_if_processing_interrupted()
            own = {} if options is None else {"model_options": options}
            return model_wrap(x.float(), sigma.float(), **{**extra_args, **own})

        def report(index: int, x0_hat: Tensor, x: Tensor) -> None:
            if callback is not None:
                callback(index, x0_hat.float(), x.float(), total)

        mask = None if denoise_mask is None else denoise_mask[:, :1]
        options = extra_args.get("model_options") or {}
        return self.work(Running(model_wrap, options, denoise, latent_image, sigmas, mask, report))


class _Aside(GuidedRun):
    """A run for the sake of what its work returns, which ComfyUI would take for a latent: it is
    kept in ``result``, and ComfyUI gets back the latent that it gave."""

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs):
        self.result = super().sample(model_wrap, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs)
        return latent_image
