"""PromptPair, PromptToPrompt and MutualSelfAttention: an edit that takes over attention of the
source prompt (arXiv 2208.01626, Prompt-to-Prompt Image Editing with Cross Attention Control; arXiv
2304.08465, MasaCtrl)."""

from __future__ import annotations

import dataclasses
import math

from comfy_api.latest import io

from ..ddpm_core.attention.controls import Controls
from ..ddpm_core.attention.local_blend import LocalBlend
from ..ddpm_core.attention.masactrl import Mutual
from ..ddpm_core.attention.prompt_to_prompt import Control
from ..ddpm_core.attention.words import align
from .host.attention import (
    AttentionControl,
    AttentionControlType,
    WordMapType,
    WordPair,
    check_control,
    named_by,
)
from .host.wires import NodeError, Socket, known, naming
from .host.words import check_clip, tokens_of

CATEGORY = "edit-friendly noise maps/attention"
LARGEST = {"latent / 4": 4, "latent / 2": 2}
SOURCE_TOOLTIP = "The prompt of the inversion, with all that was done to it there (areas, ControlNets)."
OUTPUT_TOOLTIP = "For the input attention of Noise Map Edit."
KNOWN_WORD = "Take words of the target prompt, as they are written there."


class PromptPair(io.ComfyNode):
    """Which words of a target prompt stand for which words of the source (arXiv 2208.01626,
    Prompt-to-Prompt Image Editing with Cross Attention Control, section 3.2)."""

    @classmethod
    def define_schema(cls):
        text = {"multiline": True, "dynamic_prompts": True}
        return io.Schema(
            node_id="PromptPair",
            display_name="Prompt Pair",
            category=CATEGORY,
            description="Encode the source and the target prompt, and find which words of one stand for which words "
            "of the other: what attention control goes by. Any CLIP of Stable Diffusion 1, 2 and XL.",
            **known(io.Schema, search_aliases=["word map", "prompt-to-prompt", "CLIP Text Encode", "token alignment"]),
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the model that the picture is inverted with."),
                io.String.Input("source_text", **text, tooltip="What the picture shows: the prompt of the inversion."),
                io.String.Input(
                    "target_text",
                    **text,
                    tooltip="What it shall show: the source text with as few words changed as possible. A word in "
                    "another's place takes over its attention, a new word keeps its own.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    id="source", display_name="source", tooltip="For the inversion, and for the attention control."
                ),
                io.Conditioning.Output(id="target", display_name="target", tooltip="For positive of Noise Map Edit."),
                WordMapType.Output(
                    id="words", display_name="words", tooltip="Which words stand for which, for Prompt-to-Prompt."
                ),
            ],
        )

    @classmethod
    def execute(cls, clip, source_text, target_text, **kwargs) -> io.NodeOutput:
        check_clip("PromptPair", clip)
        tokens = [clip.tokenize(text) for text in (source_text, target_text)]
        pair = WordPair(align(*(tokens_of("PromptPair", clip, one) for one in tokens)))
        source, target = (
            named_by(pair, clip.encode_from_tokens_scheduled(one), role)
            for one, role in zip(tokens, ("source", "target"))
        )
        return io.NodeOutput(source, target, pair)


class PromptToPrompt(io.ComfyNode):
    """Cross- and self-attention of the source prompt in the edit's first steps (arXiv 2208.01626,
    Prompt-to-Prompt Image Editing with Cross Attention Control), with edit-friendly maps as in
    arXiv 2304.06140, section 4 and appendix."""

    @classmethod
    def define_schema(cls):
        share = {"min": 0.0, "max": 1.0, "step": 0.001}
        advanced = known(io.String.Input, advanced=True)
        return io.Schema(
            node_id="PromptToPrompt",
            display_name="Prompt-to-Prompt",
            category=CATEGORY,
            description="Keep the layout: in the first steps the edit looks where the source prompt looked. For Stable "
            "Diffusion 1, 2 and XL. Paper, together with noise maps: steps 100, skip 12, cfg 3.5 and 9.",
            **known(io.Schema, search_aliases=["P2P", "attention control", "cross attention", "local blend"]),
            inputs=[
                io.Conditioning.Input("source", tooltip=f"{SOURCE_TOOLTIP} It comes from the Prompt Pair of words."),
                WordMapType.Input("words", tooltip="Which words stand for which, from Prompt Pair."),
                io.Float.Input(
                    "cross",
                    default=0.68,
                    **share,
                    tooltip="Share of the executed steps, from the first on, in which words look where the source's "
                    "words looked. Paper: 60 of 88 steps (0.68); h-Edit: 0.4. Less lets new forms grow.",
                ),
                io.Float.Input(
                    "self_attention",
                    default=0.227,
                    **share,
                    tooltip="Share of the executed steps in which self-attention is the source's: it holds the layout. "
                    "Paper: 20 of 88 steps (0.227); h-Edit: 0.35. 0 is none.",
                ),
                io.Combo.Input(
                    "largest",
                    options=list(LARGEST),
                    default="latent / 4",
                    tooltip="The largest layers whose self-attention is taken over: a quarter of the latent's size as "
                    "in the paper, or half of it as in h-Edit, which holds finer detail.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    multiline=True,
                    tooltip="Words of the target and how strongly they act, one a line, such as heart: 2. 1 is as it "
                    "is; useful -2 to 4. A word needs its window (cross, or its own).",
                    **advanced,
                ),
                io.String.Input(
                    "windows",
                    default="",
                    multiline=True,
                    tooltip="Words of the target with a share of the steps of their own instead of cross, one a line, "
                    "such as heart: 0.3.",
                    **advanced,
                ),
                io.String.Input(
                    "local_blend",
                    default="",
                    tooltip="Words of the source and the target, between commas, such as star, heart: the picture "
                    "changes only where they are looked at. Empty: everywhere. One more sample in every step.",
                ),
                io.Float.Input(
                    "blend_threshold",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much a place must be looked at, as a share of the most, for local_blend: more keeps "
                    "more of the picture. Paper: 0.3.",
                    **known(io.Float.Input, advanced=True),
                ),
            ],
            outputs=[AttentionControlType.Output(id="control", display_name="control", tooltip=OUTPUT_TOOLTIP)],
        )

    @classmethod
    def execute(
        cls,
        source,
        words,
        cross,
        self_attention,
        largest,
        weights="",
        windows="",
        local_blend="",
        blend_threshold=0.3,
        **kwargs,
    ) -> io.NodeOutput:
        name = "PromptToPrompt"
        if not isinstance(words, WordPair):
            raise NodeError(name, "words", f"a WORD_MAP is needed; got {type(words).__name__}.", "Use Prompt Pair.")
        sockets = {"cross": Socket("cross"), "self_": Socket("self_attention"), "windows": Socket("windows")}
        sockets |= {
            "threshold": Socket("blend_threshold"),
            "chosen": Socket("local_blend", "Take words of the prompts."),
        }
        by_word, shares = _numbers(name, "weights", weights), _numbers(name, "windows", windows)
        for socket, named in (("weights", by_word), ("windows", shares)):
            with naming(name, socket, KNOWN_WORD):
                for word in named:
                    words.words.target.positions(word)
        with naming(name, "words", **sockets):
            control = Control(words.words, cross, self_attention, by_word, shares, LARGEST[largest])
            chosen = [word.strip() for word in local_blend.split(",") if word.strip()]
            blend = LocalBlend(words.words, chosen, blend_threshold) if chosen else None
        return io.NodeOutput(AttentionControl(source, Controls(control, blend=blend), words))


class MutualSelfAttention(io.ComfyNode):
    """Keys and values of the source in self-attention, from a step and a layer on (arXiv
    2304.08465, MasaCtrl: Tuning-Free Mutual Self-Attention Control)."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MutualSelfAttention",
            display_name="Mutual Self-Attention (MasaCtrl)",
            category=CATEGORY,
            description="Keep the look and free the form: the edit makes its own layout and fills it with what it "
            "finds in the source. For other poses and shapes, with a low skip; Stable Diffusion 1, 2 and XL.",
            **known(io.Schema, search_aliases=["MasaCtrl", "pose edit", "non-rigid edit", "attention control"]),
            inputs=[
                io.Conditioning.Input("source", tooltip=SOURCE_TOOLTIP),
                io.Float.Input(
                    "start",
                    default=0.08,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the executed steps before it begins: until then the layout is free. Paper: 4 of "
                    "50 steps (0.08).",
                ),
                io.Float.Input(
                    "layer",
                    default=0.625,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="Share of the model's layers before it begins, in their order. Paper: 10 of 16 (0.625).",
                ),
                AttentionControlType.Input(
                    "attention",
                    optional=True,
                    tooltip="A Prompt-to-Prompt to go with it, of the same source (the one connected here counts); "
                    "where both want a layer it wins.",
                ),
            ],
            outputs=[AttentionControlType.Output(id="control", display_name="control", tooltip=OUTPUT_TOOLTIP)],
        )

    @classmethod
    def execute(cls, source, start, layer, attention=None, **kwargs) -> io.NodeOutput:
        with naming("MutualSelfAttention", None, start=Socket("start"), layer=Socket("layer")):
            mutual = Mutual(start, layer)
        check_control("MutualSelfAttention", attention)
        if attention is None:
            return io.NodeOutput(AttentionControl(source, Controls(mutual=mutual)))
        if attention.controls.mutual is not None:
            problem = "it has a Mutual Self-Attention already."
            raise NodeError("MutualSelfAttention", "attention", problem, "Connect a Prompt-to-Prompt, or nothing.")
        controls = dataclasses.replace(attention.controls, mutual=mutual)
        return io.NodeOutput(AttentionControl(source, controls, attention.pair))


def _numbers(node: str, socket: str, text: str) -> dict[str, float]:
    """{word: number} from lines "word: number"."""
    numbers = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, number = line.rpartition(":")
        try:
            numbers[word.strip()] = float(number)
            if not math.isfinite(numbers[word.strip()]):
                raise ValueError
        except ValueError:
            problem = f"each line must be a word, a colon and a number; got {line!r}."
            raise NodeError(node, socket, problem, "Write it as in heart: 2.") from None
    return numbers


NODES = [PromptPair, PromptToPrompt, MutualSelfAttention]
