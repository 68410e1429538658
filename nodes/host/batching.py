"""How many timesteps go into one call of the model, and how much memory noise maps take."""

from __future__ import annotations

import logging
import math
import re

import comfy.model_management
import torch
from torch import Tensor

CHUNKS = (8, 4, 2)  # timesteps a call that the automatic choice tries; more did not pay where it was measured
BYTES_A_VALUE = 16  # of noise maps, a step and latent value: latent and prediction in float32, residual in float64

# Entries of a prompt that ComfyUI judges by the first timestep of a call alone: ControlNets,
# scheduled hooks, ranges of steps.
FIRST_TIMESTEP_ONLY = (
    "control",
    "hooks",
    "start_percent",
    "end_percent",
    "timestep_start",
    "timestep_end",
    "clip_start_percent",
)
# Entries of a prompt that ComfyUI hands out in turn over the items of a call.
HANDED_OUT = ("mask", "cross_attn")
# Functions of others inside the transformer, and around the model, which may read one timestep too.
TRANSFORMER_PATCHES = ("patches", "patches_replace", "wrappers", "callbacks")
MODEL_PATCHES = (
    "model_function_wrapper",
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
    "context_handler",
)


def timesteps_a_call(guider, latent: Tensor, wanted: int) -> int:
    """How many of a running guider, for latents (B, C, *S); ``wanted`` is the widget, where 0
    leaves the choice to us."""
    if one_timestep_a_call(guider, len(latent)):
        return 1
    return wanted or automatic_chunk(guider.inner_model, latent.shape, latent.device)


def one_timestep_a_call(guider, batch: int) -> bool:
    """Whether a run on ``batch`` pictures has parts that see only the first timestep of a call, or
    prompts whose parts would fall to other timesteps than in a call of one."""
    options, conditionings = (
        guider.model_options,
        [entry for conds in guider.original_conds.values() for entry in conds],
    )
    transformer = options.get("transformer_options", {})
    return (
        not is_stock_guider(guider)
        or any(transformer.get(key) for key in TRANSFORMER_PATCHES)
        or any(options.get(key) for key in MODEL_PATCHES)
        or any(entry.get(key) is not None for entry in conditionings for key in FIRST_TIMESTEP_ONLY)
        or any(batch % len(entry[key]) for entry in conditionings for key in HANDED_OUT if entry.get(key) is not None)
    )


def is_stock_guider(guider) -> bool:
    """Whether a guider is ComfyUI's own, which takes a timestep for each item of the batch. Modules
    of its extra nodes are named by their path."""
    module = type(guider).__module__
    return module == "comfy.samplers" or re.split(r"[/\\.]", module)[-2:] == ["comfy_extras", "nodes_custom_sampler"]


def automatic_chunk(inner_model, shape: torch.Size, device: torch.device) -> int:
    """Timesteps a call whose two guidance branches fit into the free memory, by ComfyUI's own
    estimate."""
    patcher = getattr(inner_model, "current_patcher", None)  # newer ones count what ComfyUI can give back
    free = getattr(patcher, "get_free_memory", comfy.model_management.get_free_memory)(device)
    batch, *rest = shape
    return next((k for k in CHUNKS if inner_model.memory_required([2 * k * batch, *rest]) * 1.5 < free), 1)


def warn_of_memory(node: str, steps: int, shape: torch.Size) -> None:
    """Say in the log that noise maps of ``steps`` for latents (B, C, *S) will take more than half
    of the memory that is free."""
    needed, free = BYTES_A_VALUE * steps * math.prod(shape), comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free / 2:
        gigabytes = f"{needed / 1e9:.1f} GB of the {free / 1e9:.1f} GB of memory that is free"
        remedy = "Fewer steps, more skip, a smaller picture or a smaller batch take less."
        logging.warning("%s: the noise maps of %d steps will take %s. %s", node, steps, gigabytes, remedy)
