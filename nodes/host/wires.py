"""What the nodes have in common at their sockets: the type of noise maps, inputs, errors for the
person at the graph, and whether maps fit a model."""

from __future__ import annotations

import inspect
import logging
import sys
from contextlib import contextmanager
from typing import NamedTuple

from comfy.model_sampling import CONST
from comfy_api.latest import io
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ...ddpm_core import NoiseMaps, Process
from .fingerprint import fingerprint_of

NoiseMapsType = io.Custom("NOISE_MAPS")
NOISE_MAPS_TOOLTIP = "Edit-friendly noise maps: the picture as a starting latent and one noise map for each step."
NOT_FINITE = (
    "Start ComfyUI with --bf16-unet or --fp32-unet; if that does not help, take LoRAs and patches off one by one."
)
ALL_STEPS = "Lower end, or raise start; 100 and 0 are all steps."


# Edits are compared at one seed; an older ComfyUI can only be told that there is a choice.
SEED_CONTROL = io.ControlAfterGenerate.fixed if hasattr(io, "ControlAfterGenerate") else True


def known(kind: type, **options) -> dict:
    """Those options of an input or a schema that the installed ComfyUI's class takes: an older one
    raises at the others."""
    return {name: value for name, value in options.items() if name in inspect.signature(kind).parameters}


def seed_input(tooltip: str) -> io.Int.Input:
    limits = {"min": 0, "max": 0xFFFFFFFFFFFFFFFF}
    return io.Int.Input("seed", default=0, **limits, control_after_generate=SEED_CONTROL, tooltip=tooltip)


def window_inputs(
    verb: str, start: float, end: float, start_note: str = "", end_note: str = ""
) -> list[io.Float.Input]:
    """``start`` and ``end`` in per cent of the schedule from its end; ``verb`` says what happens to
    the steps between."""
    rest = "in per cent of the schedule: 100 is the noisy start, 0 the finished picture."
    percent = {"min": 0.0, "max": 100.0, "step": 1.0, **known(io.Float.Input, advanced=True)}
    return [
        io.Float.Input("start", default=start, **percent, tooltip=f"First {verb} step, {rest}{start_note}"),
        io.Float.Input("end", default=end, **percent, tooltip=f"Last {verb} step, {rest}{end_note}"),
    ]


class NodeError(ValueError):
    """An error for the person at the graph: the node, the socket if one is to blame, the rule with
    the value received, and what to do."""

    def __init__(self, node: str, socket: str | None, problem: str, remedy: str = ""):
        where = _as_seen(node) if socket is None else f"{_as_seen(node)}, input '{socket}'"
        super().__init__(f"{where}: {problem}" + (f" {remedy}" if remedy else ""))


def say(node: str, problem: str) -> None:
    """Warn the person at the graph about a node: in the log, and on the node that is running."""
    logging.warning("%s: %s", _as_seen(node), problem)
    running = get_executing_context()
    if running is not None:
        from server import PromptServer

        PromptServer.instance.send_progress_text(problem, running.node_id)


def _as_seen(node: str) -> str:
    """A node's name in the menu, and in quotes the title that the running node has in the graph."""
    comfy = sys.modules.get("nodes")  # ComfyUI's, which knows the stock nodes too
    name, title = getattr(comfy, "NODE_DISPLAY_NAME_MAPPINGS", {}).get(node, node), _title_of_running()
    return name if title in (None, name) else f'{name} "{title}"'


def _title_of_running() -> str | None:
    running = get_executing_context()
    if running is None:
        return None
    from server import PromptServer

    for _, prompt_id, prompt, *_ in PromptServer.instance.prompt_queue.get_current_queue()[0]:
        if prompt_id == running.prompt_id:
            return prompt.get(running.node_id, {}).get("_meta", {}).get("title")
    return None


class Socket(NamedTuple):
    """Where an argument of the core comes in at a node, and what to do when it does not fit."""

    name: str | None
    remedy: str = ""


def window_sockets(remedy: str) -> dict[str, Socket]:
    """The sockets of ``window_inputs`` for ``naming``."""
    return {name: Socket(name, remedy) for name in ("start", "end")}


@contextmanager
def naming(node: str, socket: str | None, remedy: str = "", /, **arguments: Socket):
    """Translate an error of the core into one that names the node and the socket, and says what to
    do.

    arguments       the sockets of the core's arguments: what a BadArgument is about
    socket, remedy  for every other argument, and for a ValueError that names none
    """
    try:
        yield
    except NodeError:
        raise
    except ValueError as error:
        where = arguments.get(getattr(error, "argument", ""), Socket(socket, remedy))
        raise NodeError(node, where.name, str(error), where.remedy) from error


def check_maps(node: str, maps: NoiseMaps, socket: str = "noise_maps") -> None:
    """Raise NodeError unless what came in are noise maps of this pack: another one may call its own
    type NOISE_MAPS too."""
    if not isinstance(maps, NoiseMaps):
        problem = f"NOISE_MAPS of this pack are needed; got {type(maps).__name__}."
        raise NodeError(node, socket, problem, "Connect the output of Edit-Friendly Invert.")


def check_fits(node: str, maps: NoiseMaps, model, socket: str | None = "model") -> None:
    """Raise NodeError unless the maps belong to the model's kind of latent and process, and say so
    where they are another model's; ``socket`` is the one that the model comes in at, if the node
    has it."""
    check_maps(node, maps)
    remedy = "Use the model that the picture was inverted with."
    latent_format, held = model.get_model_object("latent_format"), (maps.latents.shape[2], maps.latents.dim() - 3)
    needed = (latent_format.latent_channels, latent_format.latent_dimensions)
    if held != needed:
        ours = f"the maps have {held[0]} latent channels in {held[1]} dimensions"
        problem = f"{ours} and the model has {needed[0]} in {needed[1]}."
        raise NodeError(node, "noise_maps", problem, remedy)
    process = process_of(node, socket, model)
    if maps.process is not process:
        problem = f"the maps were made with a '{maps.process.value}' model and this is a '{process.value}' model."
        raise NodeError(node, "noise_maps", problem, remedy)
    ours = fingerprint_of(model)
    if maps.model not in (None, ours):
        what = f"The noise maps were made with another model ({maps.model}; this one: {ours})"
        say(node, f"{what}: the source prompt does not give the picture back. Use that one, unless this is meant.")


def process_of(node: str, socket: str | None, model) -> Process:
    """The process that a MODEL was trained for. Raises NodeError for one that does not go from
    noise to a picture as the core does."""
    sampling, kind = model.get_model_object("model_sampling"), type(model.model).__name__
    # By name: an older ComfyUI has only some of them.
    if any(base.__name__.startswith("IMG_TO_IMG") for base in type(sampling).__mro__):
        problem = f"the model ({kind}) turns one picture into another, without noise between, so it has no noise maps."
        raise NodeError(node, socket, problem, "Use a model that makes pictures from noise and a prompt.")
    if not isinstance(sampling, CONST):
        return Process.VE
    scale = getattr(sampling, "noise_scale", 1.0)  # since 2026
    if scale != 1:
        problem = f"the model ({kind}) was trained with noise {scale:g} times as strong; noise maps are for 1."
        raise NodeError(node, socket, problem, "Use another model, or set its noise scale to 1.")
    return Process.FLOW


def maps_latent(maps: NoiseMaps, model) -> Tensor:
    """The clean latent of the maps as on LATENT wires."""
    return model.get_model_object("latent_format").process_out(maps.latents[-1])
