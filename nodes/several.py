"""AddEdit and EditGuider: several edits at once, each with its strength, its place and its steps
(arXiv 2311.16711, LEDITS++: Limitless Image Editing using Text-to-Image Models, on a base that gives
the source back)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ..ddpm_core import NoiseMaps
from ..ddpm_core.edits.window import steps_between
from ..ddpm_core.regions import mask_of
from .host.guidance import Edit, SourceGuider, source_guider
from .host.guided import make_guider
from .host.masks import MASK_REMEDY, both_masks, noise_mask
from .host.path import difference_on
from .host.wires import (
    ALL_STEPS,
    NOISE_MAPS_TOOLTIP,
    NOT_FINITE,
    NodeError,
    NoiseMapsType,
    Socket,
    check_fits,
    known,
    naming,
    window_inputs,
    window_sockets,
)

EditTermsType = io.Custom("EDIT_TERMS")
SOFTNESS, GROW = 0.2, 1  # of automatic masks: wide enough for the whole of an object
ALIASES = ["several edits", "multiple edits", "LEDITS", "LEDITS++", "SEGA", "semantic guidance"]


class EditTerm(NamedTuple):
    """What an AddEdit says, before noise maps are known."""

    prompt: list  # CONDITIONING
    strength: float
    by_itself: bool  # whether the noise maps say where
    threshold: float  # of that mask
    start: float  # per cent of the schedule
    end: float
    mask: Tensor | None  # MASK


class AddEdit(io.ComfyNode):
    """One edit of several (arXiv 2311.16711, LEDITS++: Limitless Image Editing using Text-to-Image
    Models)."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AddEdit",
            display_name="Add Edit",
            category="edit-friendly noise maps",
            description="One edit of several that are made at once: what, how strongly, where and in which steps. "
            "Chain as many as you like, and connect the last one to Noise Map Edit or Edit Guider.",
            **known(io.Schema, search_aliases=ALIASES),
            inputs=[
                io.Conditioning.Input(
                    "positive",
                    tooltip="A prompt with this one change: the source prompt with as few words changed as possible.",
                ),
                io.Float.Input(
                    "strength",
                    default=5.0,
                    min=-100.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How strongly, as a cfg: 0 changes nothing; below 0 takes away what the prompt adds to "
                    "the source prompt. Useful 2 to 7.5; LEDITS++ has 5.",
                ),
                io.Boolean.Input(
                    "auto_mask",
                    default=True,
                    tooltip="Change the picture only where this prompt and the source prompt differ for the model, "
                    "read off the noise maps; one more sample a step before the edit.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.2,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Of the automatic mask: less takes in more of the picture.",
                ),
                *window_inputs("guided", 100.0, 0.0),
                EditTermsType.Input("edits", optional=True, tooltip="The edits before this one, from Add Edit."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="A mask of your own for this edit; an automatic one never leaves it.",
                ),
            ],
            outputs=[
                EditTermsType.Output(
                    id="terms",
                    display_name="EDIT_TERMS",
                    tooltip="All edits so far: for Noise Map Edit or Edit Guider.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, positive, strength, auto_mask, threshold, start, end, edits=None, mask=None, **kwargs
    ) -> io.NodeOutput:
        term = EditTerm(positive, strength, auto_mask, threshold, start, end, mask)
        return io.NodeOutput((*_checked("AddEdit", edits), term))


class EditGuider(io.ComfyNode):
    """Guidance from the source prompt to one edit or several, for the stock samplers: h-Edit's
    (arXiv 2503.02187, h-Edit: Effective and Flexible Diffusion-Based Editing via Doob's
    h-Transform), and LEDITS++'s (arXiv 2311.16711) with the source's base."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EditGuider",
            display_name="Edit Guider",
            category="edit-friendly noise maps",
            description="Guidance from the source prompt to the target, or to several edits, for SamplerCustomAdvanced "
            "with Noise Map Sampler. Where target and source are the same, the picture comes back at any cfg.",
            **known(io.Schema, search_aliases=[*ALIASES, "source guidance", "DualCFGGuider", "h-Edit", "FlowAlign"]),
            inputs=[
                io.Model.Input("model", tooltip="The model that the picture was inverted with."),
                io.Conditioning.Input("source", tooltip="The prompt of the inversion."),
                io.Conditioning.Input("negative", tooltip="The negative prompt of the inversion; unused at its cfg 1."),
                NoiseMapsType.Input(
                    "noise_maps", tooltip=f"{NOISE_MAPS_TOOLTIP} The guidance starts from the cfg that they remember."
                ),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance from the source prompt to positive: more changes more. Useful 2 to 7.5.",
                ),
                io.Conditioning.Input(
                    "positive", optional=True, tooltip="The target prompt; not needed with edits connected."
                ),
                EditTermsType.Input("edits", optional=True, tooltip="More edits at once, from Add Edit."),
            ],
            outputs=[io.Guider.Output(id="guider", display_name="GUIDER", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, source, negative, noise_maps, cfg, positive=None, edits=None, **kwargs) -> io.NodeOutput:
        check_fits("EditGuider", noise_maps, model)
        first = [] if positive is None else [Edit(positive, cfg)]
        with naming("EditGuider", "noise_maps", **SOCKETS):
            guider = guider_along("EditGuider", noise_maps, model, source, negative, first, edits)
        return io.NodeOutput(guider)


SOCKETS = {
    "denoise": Socket("model", NOT_FINITE),
    "mask": Socket("edits", MASK_REMEDY),
    "threshold": Socket("edits"),
    **{name: Socket("edits", socket.remedy) for name, socket in window_sockets(ALL_STEPS).items()},
}


def guider_along(
    node: str, maps: NoiseMaps, model, source, negative, first: Sequence[Edit], terms: Sequence[EditTerm] | None
) -> SourceGuider:
    """Guidance from the source prompt to edits of the whole picture and to those of AddEdit nodes,
    whose automatic masks are read off the maps. Raises BadArgument, and NodeError for maps that do
    not know their guidance."""
    if maps.guidance is None:
        problem = "the noise maps do not know the cfg of their inversion, from which the guidance starts."
        raise NodeError(node, "noise_maps", problem, "Invert again with Edit-Friendly Invert (or a CFGGuider).")
    edits = [_edit(maps, model, negative, term) for term in _checked(node, terms)]
    return source_guider(model, source, negative, maps.guidance, [*first, *edits])


def _edit(maps: NoiseMaps, model, negative, term: EditTerm) -> Edit:
    chosen = steps_between(maps, term.start, term.end)
    sigmas = [step.sigma for step, wanted in zip(maps.steps, chosen) if wanted]
    mask = None if term.mask is None else noise_mask(term.mask, maps.latents.shape[1:])
    if term.by_itself and term.strength:
        amount = difference_on(maps, make_guider(model, term.prompt, negative, maps.guidance))
        mask = both_masks(mask_of(amount, threshold=term.threshold, softness=SOFTNESS, grow=GROW), mask)
    return Edit(term.prompt, term.strength, mask, (min(sigmas), max(sigmas)))


def _checked(node: str, terms: Sequence[EditTerm] | None) -> Sequence[EditTerm]:
    """The edits on a wire, none where nothing is connected. Raises NodeError for another pack's."""
    terms = () if terms is None else terms
    if not isinstance(terms, tuple) or not all(isinstance(term, EditTerm) for term in terms):
        problem = f"EDIT_TERMS of this pack are needed; got {type(terms).__name__}."
        raise NodeError(node, "edits", problem, "Connect the output of Add Edit.")
    return terms


NODES = [AddEdit, EditGuider]
