"""Between ComfyUI and the core: the type on the wires, and a guider's run with a body of our own."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import comfy.model_management
import comfy.samplers
import comfy.utils
import torch
from comfy.model_sampling import CONST
from comfy_api.latest import io
from torch import Tensor

from ...ddpm_core import NoiseMaps, Process
from ...ddpm_core.checks import NotFinite, check_finite

NoiseMapsType = io.Custom("NOISE_MAPS")
NOISE_MAPS_TOOLTIP = "Edit-friendly noise maps: the picture as a starting latent and one noise map for each step."
NOT_FINITE = (
    "Start ComfyUI with --bf16-unet or --fp32-unet; if that does not help, take LoRAs and patches off one by one."
)
BYTES_A_VALUE = (
    16  # of noise maps for each step and latent value: latent and prediction in float32, residual in float64
)
CHUNKS = (8, 4, 2)  # timesteps a call that the automatic choice tries


def seed_input(tooltip: str) -> io.Int.Input:
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip)


def window_inputs(
    verb: str, start: float, end: float, start_note: str = "", end_note: str = ""
) -> list[io.Float.Input]:
    """``start`` and ``end`` in per cent of the schedule from its end; ``verb`` says what happens to
    the steps between."""
    rest = "in per cent of the schedule from its end: 100 is the noisy start."
    return [
        io.Float.Input(
            "start", default=start, min=0.0, max=100.0, step=1.0, tooltip=f"First {verb} step, {rest}{start_note}"
        ),
        io.Float.Input("end", default=end, min=0.0, max=100.0, step=1.0, tooltip=f"Last {verb} step, {rest}{end_note}"),
    ]


class NodeError(ValueError):
    """An error for the person at the graph: the node, the socket, the rule with the value received,
    and what to do."""

    def __init__(self, node: str, socket: str, problem: str, remedy: str = ""):
        super().__init__(f"{node}, input '{socket}': {problem}" + (f" {remedy}" if remedy else ""))


@contextmanager
def naming(node: str, socket: str, remedy: str = ""):
    """Turn the core's ValueError into one that names the node and the socket, and says what to do."""
    try:
        yield
    except NodeError:
        raise
    except NotFinite as error:
        raise NodeError(node, socket, str(error), remedy or NOT_FINITE) from error
    except ValueError as error:
        raise NodeError(node, socket, str(error), remedy) from error


@dataclass(frozen=True)
class Running:
    """What a sampler's body works with: the guider's denoiser, and what the guider was asked for."""

    guider: comfy.samplers.CFGGuider
    denoise: Callable[[Tensor, Tensor], Tensor]
    latent: Tensor  # (B, C, *S) in the model's space, on its device
    sigmas: Tensor  # (S+1,)
    mask: Tensor | None  # (B, 1, *S): the noise mask on the LATENT wire
    report: Callable[[int, Tensor, Tensor], None]


class GuidedRun(comfy.samplers.Sampler):
    """A sampler whose work is ``body(Running)``, which returns the clean latent; run through
    ``guider.sample`` it gets LoRAs, ControlNets, hooks, previews, interrupts and offloading from
    ComfyUI."""

    def __init__(self, body: Callable[[Running], Tensor]):
        self.body = body

    def sample(
        self,
        model_wrap,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image=None,
        denoise_mask=None,
        disable_pbar=False,
        **kwargs,
    ):
        total = len(sigmas) - 1

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            comfy.model_management.throw_exception_if_processing_interrupted()
            return model_wrap(x.float(), sigma.float(), **extra_args)

        def report(index: int, x0_hat: Tensor, x: Tensor) -> None:
            if callback is not None:
                callback(index, x0_hat.float(), x.float(), total)

        mask = None if denoise_mask is None else denoise_mask[:, :1]
        return self.body(Running(model_wrap, denoise, latent_image, sigmas, mask, report))


def make_guider(model, positive, negative, cfg: float) -> comfy.samplers.CFGGuider:
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider


def progress(model, steps: int) -> Callable:
    """ComfyUI's progress bar and preview of the running node, as a sampler's callback."""
    import latent_preview

    return latent_preview.prepare_callback(model, steps)


def run(
    guider,
    latent: Tensor,
    sigmas: Tensor,
    sampler: GuidedRun,
    seed: int,
    mask: Tensor | None = None,
    callback: Callable | None = None,
) -> Tensor:
    """Run a sampler as SamplerCustomAdvanced does; latent (B, C, *S) as on ComfyUI's LATENT wires,
    and so is the result, on the intermediate device.

    ``callback`` is a sampler's callback of the caller's own instead of a progress bar over this
    run.
    """
    callback = callback or progress(guider.model_patcher, len(sigmas) - 1)
    disable = not comfy.utils.PROGRESS_BAR_ENABLED
    out = guider.sample(
        torch.zeros_like(latent),
        latent,
        sampler,
        sigmas.float(),
        denoise_mask=mask,
        callback=callback,
        disable_pbar=disable,
        seed=seed,
    )
    return out.to(comfy.model_management.intermediate_device())


def process_of(model) -> Process:
    """The process that a MODEL was trained for."""
    return Process.FLOW if isinstance(model.get_model_object("model_sampling"), CONST) else Process.VE


def latent_mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask of any size as (B, 1, *S) in [0, 1] for latents of shape (B, C, *S): each cell gets
    the mean of its pixels.

    mask: (H, W), (N, H, W) or (N, 1, H, W); for a video latent the N are frames. Raises NotFinite.
    """
    check_finite(mask, "the mask")
    batch, _, *size = shape
    mask = mask.float().reshape(-1, 1, *mask.shape[-2:])
    if len(size) == 3:
        mask = mask.movedim(0, 1)[None]  # (1, 1, frames, H, W)
    mask = torch.nn.functional.interpolate(mask, size=size, mode="area")
    return comfy.utils.repeat_to_batch_size(mask, batch).clamp(0, 1).contiguous()


def noise_mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A noise mask of any size as (B, 1, *S) in [0, 1] for latents of shape (B, C, *S), as
    ComfyUI's own samplers read it. Raises NotFinite."""
    check_finite(mask, "the mask")
    return comfy.utils.reshape_mask(mask.float(), shape)[:, :1].clamp(0, 1).contiguous()


def both_masks(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Where both allow a change; None allows it everywhere."""
    if one is None or other is None:
        return other if one is None else one
    return torch.minimum(one, other.to(one))


def is_stock_guider(guider) -> bool:
    """Whether a guider is ComfyUI's own, which takes a timestep for each item of the batch. Modules
    of its extra nodes are named by their path."""
    module = type(guider).__module__
    return module == "comfy.samplers" or re.split(r"[/\\.]", module)[-2:] == ["comfy_extras", "nodes_custom_sampler"]


def one_timestep_a_call(guider, batch: int) -> bool:
    """Whether a run on ``batch`` pictures has parts that see only the first timestep of a call:
    timestep ranges, ControlNets, scheduled hooks, model patches, guiders of other packs; or prompts
    whose parts ComfyUI hands out in turn over the items of a call."""
    if not is_stock_guider(guider):
        return True
    looks_at_first = {
        "control",
        "hooks",
        "start_percent",
        "end_percent",
        "timestep_start",
        "timestep_end",
        "clip_start_percent",
    }
    conditionings = [entry for conds in guider.original_conds.values() for entry in conds]
    options = guider.model_options
    transformer = options.get("transformer_options", {})
    patched = any(transformer.get(key) for key in ("patches", "patches_replace", "wrappers", "callbacks")) or any(
        options.get(key)
        for key in (
            "model_function_wrapper",
            "sampler_cfg_function",
            "sampler_pre_cfg_function",
            "sampler_post_cfg_function",
            "sampler_calc_cond_batch_function",
            "context_handler",
        )
    )
    uneven = any(
        batch % len(entry[key])
        for entry in conditionings
        for key in ("mask", "cross_attn")
        if entry.get(key) is not None
    )
    return patched or uneven or any(entry.get(key) is not None for entry in conditionings for key in looks_at_first)


def automatic_chunk(inner_model, shape: torch.Size, device: torch.device) -> int:
    """Timesteps a call whose two guidance branches fit into the free memory, by ComfyUI's own
    estimate; more than 8 did not pay where it was measured."""
    patcher = getattr(inner_model, "current_patcher", None)  # newer ones count what ComfyUI can give back
    free = getattr(patcher, "get_free_memory", comfy.model_management.get_free_memory)(device)
    batch, *rest = shape
    return next((k for k in CHUNKS if inner_model.memory_required([2 * k * batch, *rest]) * 1.5 < free), 1)


def warn_of_memory(node: str, steps: int, shape: torch.Size) -> None:
    """Say in the log that noise maps of ``steps`` for latents (B, C, *S) will take more than half
    of the memory that is free."""
    needed, free = BYTES_A_VALUE * steps * math.prod(shape), comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free / 2:
        logging.warning(
            "%s: the noise maps of %d steps will take %.1f GB of the %.1f GB of memory that is free. Fewer steps, more skip, a smaller picture or a smaller "
            "batch take less.",
            node, steps, needed / 1e9, free / 1e9,
        )  # fmt: skip


def check_maps(node: str, maps: NoiseMaps, socket: str = "noise_maps") -> None:
    if not isinstance(maps, NoiseMaps):
        raise NodeError(
            node,
            socket,
            f"NOISE_MAPS of this pack are needed; got {type(maps).__name__}.",
            "Connect the output of EditFriendlyInvert.",
        )


def check_fits(node: str, maps: NoiseMaps, model) -> None:
    """Raise NodeError unless the maps belong to the model's kind of latent and process."""
    check_maps(node, maps)
    remedy = "Use the model that the picture was inverted with."
    latent_format, held = model.get_model_object("latent_format"), (maps.latents.shape[2], maps.latents.dim() - 3)
    needed = (latent_format.latent_channels, latent_format.latent_dimensions)
    if held != needed:
        raise NodeError(
            node,
            "noise_maps",
            f"the maps have {held[0]} latent channels in {held[1]} dimensions and the model has {needed[0]} in {needed[1]}.",
            remedy,
        )
    if maps.process is not process_of(model):
        raise NodeError(
            node,
            "noise_maps",
            f"the maps were made with a '{maps.process.value}' model and this is a '{process_of(model).value}' model.",
            remedy,
        )


def maps_latent(maps: NoiseMaps, model) -> Tensor:
    """The clean latent of the maps as on LATENT wires."""
    return model.get_model_object("latent_format").process_out(maps.latents[-1])
