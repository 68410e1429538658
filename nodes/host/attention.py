"""The core's attention controls in a guider's run, through ComfyUI's patches: the attention of the
source prompt on the path is captured in a call of its own, and goes into the guider's next call."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

import comfy.model_patcher
import comfy.samplers
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy_api.latest import io
from torch import Tensor

from ...ddpm_core import NoiseMaps
from ...ddpm_core.attention.controls import Controls, Layer, Taking
from ...ddpm_core.attention.words import Tokens, WordMap
from .guidance import ask, reads_branches
from .guided import Running
from .wires import NodeError

WordMapType = io.Custom("WORD_MAP")
AttentionControlType = io.Custom("ATTENTION_CONTROL")

PAIR = "noise_maps_word_pair"  # a prompt's entry that says which word map knows its words, and as which of the two
SOURCE = "source of attention"  # the guider's name for the prompt that is captured
BLOCK = re.compile(r"(input|middle|output)_blocks?\.(\d+)\.(?:\d+\.)?transformer_blocks\.(\d+)")
UNET_ONLY = "Attention control works with Stable Diffusion 1, 2 and XL, and models made from them."
Block = tuple[str, int, int]  # ("input", 4, 0): where a transformer block lies


@dataclass(frozen=True, eq=False)
class WordPair:
    """What a WORD_MAP wire carries: the words of two prompts, whose conditionings name it."""

    words: WordMap


@dataclass(frozen=True)
class AttentionControl:
    """What an ATTENTION_CONTROL wire carries: the source prompt's conditioning, and the controls.
    ``pair`` is the word map's, where they need one."""

    source: list
    controls: Controls
    pair: WordPair | None = None


def check_control(node: str, attention) -> None:
    """Raises NodeError for what is no AttentionControl; None, nothing connected, is fine."""
    if not isinstance(attention, AttentionControl | None):
        problem = f"an ATTENTION_CONTROL of this pack is needed; got {type(attention).__name__}."
        raise NodeError(node, "attention", problem, "Use Prompt-to-Prompt or Mutual Self-Attention.")


def named_by(pair: WordPair, conditioning: list, role: str) -> list:
    """A conditioning whose entries say that their words are the source's or the target's of a
    pair."""
    return [[embedding, {**entry, PAIR: (pair, role)}] for embedding, entry in conditioning]


def blocks_of(model) -> list[Block]:
    """Where a model's transformer blocks lie, in the order of the network; none for models that
    have other blocks."""
    found = []
    for name, module in model.get_model_object("diffusion_model").named_modules():
        place = BLOCK.fullmatch(name)
        if place and getattr(module, "attn2", None) is not None:
            kind, number, index = place.groups()
            found.append((kind, 0 if kind == "middle" else int(number), int(index)))
    return found


class Attending:
    """A denoiser for one run along ``maps``, and the mask of its local blend.

    What is captured at a step is dropped with the step. Raises NodeError for ``node``'s inputs that
    do not fit.
    """

    def __init__(self, node: str, running: Running, maps: NoiseMaps, attention: AttentionControl):
        self.node, self.running, self.maps, self.attention = node, running, maps, attention
        self.steps, self.size = len(maps.residuals), tuple(maps.latents.shape[-2:])
        self.blocks = blocks_of(running.guider.model_patcher)
        if not self.blocks:
            raise NodeError(node, "attention", f"{UNET_ONLY} This model has no such layers.", "Disconnect it.")
        if running.options.get("context_handler") is not None:
            problem = "attention control does not work in context windows."
            raise NodeError(node, "model", problem, "Take the node that sets a context window off the model.")
        self.depths = {block: i / len(self.blocks) for i, block in enumerate(self.blocks)}
        self.blending = attention.controls.start(self.steps, self.size)
        self.pairs_needed, self.is_target_asked = reads_branches(running.options), False
        self.mask = None if self.blending is None else self._mask
        self.partners = self._pair_prompts()

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        step = self.maps.step_at(sigma)
        taking = self.attention.controls.at(step, self.steps, self.blending)
        if taking is None:
            return self.running.denoise(x, sigma)
        call = _Call(self, taking)
        path, guider = self.maps.latents[step].to(x.device, torch.float32), self.running.guider
        prompts = [guider.conds[SOURCE], *([guider.conds.get("negative")] if self.pairs_needed else [])]
        ask(guider.inner_model, prompts, path, sigma.float(), call.options(injecting=False))
        return self.running.denoise(x, sigma, call.options(injecting=True))

    def _mask(self, step: int) -> Tensor | None:
        """The local blend's; none while no edit has been at work."""
        return self.blending.mask(step) if self.is_target_asked else None

    def refuse(self, socket: str, problem: str, remedy: str) -> None:
        raise NodeError(self.node, socket, problem, remedy)

    def _pair_prompts(self) -> dict:
        """{a target entry's uuid: the uuids of entries of the source for the same area}. ComfyUI
        gives copies of entries the same uuid; here each entry of the run gets its own."""
        prompts = self.running.guider.conds
        edits = getattr(self.running.guider, "names", None)  # under guidance from the source
        names = edits or [name for name in prompts if name not in (SOURCE, "negative")]
        for name in (*names, SOURCE):
            prompts[name] = [{**entry, "uuid": uuid.uuid4()} for entry in prompts[name]]
        edited = "positive is not" if len(names) == 1 else "no prompt of the edits is"
        targets = self._of_pair([prompts[name] for name in names], "target", edited)
        sources = self._of_pair([prompts[SOURCE]], "source", "source of the attention control is not")
        return {
            target["uuid"]: [source["uuid"] for source in sources if source.get("area") == target.get("area")]
            for target in targets
        }

    def _of_pair(self, prompts: list[list[dict]], role: str, lacking: str) -> list[dict]:
        """The entries of prompts that the controls are about: all of them, or those that the word
        map names; ``lacking`` begins the error where there are none. Where ComfyUI has filled an
        area with another prompt's words, the entry that these words came with counts."""
        entries, pair = [entry for prompt in prompts for entry in prompt], self.attention.pair
        if pair is None:
            return entries
        first = {}
        for entry in entries:
            first.setdefault(_words_of(entry), entry)
        chosen = [entry for entry in entries if first[_words_of(entry)].get(PAIR) == (pair, role)]
        if not chosen:
            problem = f"{lacking} the {role} of the Prompt Pair that made the word map."
            remedy = f"Connect the {role} output of that Prompt Pair, whatever is done to it on the way."
            self.refuse("attention", problem, remedy)
        return chosen


def _words_of(entry: dict) -> int:
    """What tells an entry's words from others': ComfyUI's copies of an entry share the object."""
    return id(entry["model_conds"].get("c_crossattn"))


class _Call:
    """One step: what is captured of the source, and where it goes."""

    def __init__(self, run: Attending, taking: Taking):
        self.run, self.taking = run, taking
        self.captured: dict[tuple, tuple] = {}  # (uuid, cross, block): queries, keys, values, or None for unread ones
        self.changed: set[tuple] = set()  # the same of the target: others may ask again, for guidance of their own

    def options(self, *, injecting: bool) -> dict:
        """The run's options with our work in every attention layer, around what is there."""
        options = comfy.model_patcher.create_model_options_clone(self.run.running.options)
        there = options.get("transformer_options", {}).get("patches_replace", {})
        for kind in ("attn1", "attn2"):
            inner = dict(there.get(kind, {}))
            for place in {block[:2] for block in self.run.blocks} | set(inner):
                patch = self._patch(kind == "attn2", inner.get(place), injecting)
                comfy.model_patcher.set_model_options_patch_replace(options, patch, kind, *place)
        return options

    def _patch(self, cross: bool, inner, injecting: bool):
        def patch(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
            def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                precision = extra.get("attn_precision")
                return optimized_attention(
                    q, k, v, extra["n_heads"], attn_precision=precision, transformer_options=extra
                )

            block = (*extra["block"], extra.get("block_index", 0))
            shape = extra["activations_shape"][-2:], tuple(extra["original_shape"][-2:])
            layer = Layer(cross, shape[0][0] * shape[0][1], shape[1], self.run.depths.get(block, 0.0))
            wanted = self.taking.takes(layer)
            rows = self._rows(wanted, layer, q, k, extra) if wanted else {}
            if injecting and not self.run.partners.keys().isdisjoint(extra["uuids"]):
                self.run.is_target_asked = True
            if not injecting:
                for name, at in rows.items():
                    kept = (part[at].clone() if letter in wanted else None for letter, part in zip("qkv", (q, k, v)))
                    self.captured[name, cross, block] = tuple(kept)
                rows = {}
            out = attend(q, k, v) if inner is None else inner(q, k, v, extra)
            for name, at in rows.items():
                if name in self.run.partners and (name, cross, block) not in self.changed:
                    self.changed.add((name, cross, block))
                    change = self._change(attend, layer, name, block, (q[at], k[at], v[at]))
                    if change is not None:
                        out = out.clone()  # it may be one of the inputs
                        out[at] += change
            return out

        return patch

    def _rows(self, wanted: str, layer: Layer, q: Tensor, k: Tensor, extra: dict) -> dict:
        """{uuid of a prompt's entry: its rows}. Refuses what other patches have made of them."""
        pictures, names = self.run.maps.latents.shape[1], extra["uuids"]
        rows = {len(q), len(k), pictures * len(names)}
        tokens = {layer.tokens, *([q.shape[1]] if "q" in wanted else []), *([] if layer.cross else [k.shape[1]])}
        if len(rows) > 1 or len(tokens) > 1:
            problem = "another patch of this model changes rows or tokens of a layer that attention control needs"
            shapes = f"{tuple(q.shape)} queries, {tuple(k.shape)} keys for {layer.tokens} cells"
            self.run.refuse("model", f"{problem} ({shapes}).", "Take HyperTile, ToMe or the like off the model.")
        return {name: slice(i * pictures, (i + 1) * pictures) for i, name in enumerate(names)}

    def _change(self, attend, layer: Layer, name, block: Block, target: tuple) -> Tensor | None:
        if layer.cross and self.run.blending is not None and layer.latent != self.run.size:
            problem = "a local blend needs a target prompt for the whole picture, and this one has an area."
            self.run.refuse("attention", problem, "Clear local_blend, or use a mask instead of an area.")
        keys = [(partner, layer.cross, block) for partner in self.run.partners[name]]
        source = next((self.captured[key] for key in keys if key in self.captured), None)
        queries = None if source is None else source[0]
        if source is None or (queries is not None and queries.shape != target[0].shape):
            problem = "the source of the attention control has no words where the target has some."
            self.run.refuse("attention", problem, "Give both prompts the same areas and the same steps.")
        if layer.cross:
            source, target = (self._cut(parts, role) for parts, role in ((source, "source"), (target, "target")))
        return self.taking.change(attend, layer, source, target)

    def _cut(self, parts: tuple, role: str) -> tuple:
        """Keys and values of a prompt as often as it has tokens: in a call with a longer prompt
        ComfyUI repeats them, which does not change attention."""
        tokens: Tokens = getattr(self.run.attention.pair.words, role)
        q, k, v = parts
        if k.shape[1] % tokens.length:
            problem = f"the {role} prompt has {k.shape[1]} tokens, and {tokens.length} in its Prompt Pair."
            self.run.refuse("attention", problem, "Do not join it with other prompts, pictures or styles.")
        return q, k[:, : tokens.length], None if v is None else v[:, : tokens.length]
