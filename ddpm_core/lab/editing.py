"""The edit of the commands: what guides it, where it may change the picture, and what of the
source's attention it keeps. One way to name it, for all commands."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..attention.masactrl import Mutual
from ..attention.pix2pix_zero import sentences
from ..attention.prompt_to_prompt import Control
from ..attention.words import WordMap, align
from ..denoise import Callback, Denoise
from ..edits.faithful import faithful
from ..maps import NoiseMaps
from ..plan import H_EDIT, PROMPT_TO_PROMPT, TURBO
from ..regions import difference, mask_of
from ..replay import replay, replay_several
from .diffedit import diffedit_mask

if TYPE_CHECKING:
    from ..models.stable_diffusion import Guided, Pipeline, Prompt

# Presets that are more than numbers of steps and guidance: these, and what else they set of a mode
# and of the inversion.
COMBINATIONS = {
    "p2p": (PROMPT_TO_PROMPT, {"attention": "p2p"}),
    "h-edit": (H_EDIT, {"guidance": "source"}),
    "turbo": (TURBO, {"guidance": "source", "inversion": "turbo"}),
}
WIDE = {"mask": "auto", "threshold": 0.2, "softness": 0.2, "grow": 1}  # as the templates have it: a star's tips stay
GUIDANCE, MASKS, ATTENTION = ("negative", "source"), ("none", "auto", "diffedit"), ("none", "p2p", "masactrl", "zero")
_CHOICES = {"guidance": GUIDANCE, "mask": MASKS, "attention": ATTENTION}


@dataclass(frozen=True)
class Mode:
    """How an edit is made, whatever the model, the picture and the prompts: names and numbers only.

    cfg, negative  guidance towards the target, and the negative prompt
    cfg_source     what the picture was inverted with
    guidance       what ``cfg`` leads away from: the negative prompt, or the source prompt
    faithfulness   pull of every step towards the source
    mask           "auto": where the prompts differ on the path; "diffedit": DiffEdit's own
    threshold, softness, grow  of the mask "auto"
    attention      "p2p": Prompt-to-Prompt, for the shares ``cross`` and ``self_attention`` of the
                   executed steps; "masactrl": mutual self-attention, from the shares ``start`` of
                   the steps and ``layer`` of the layers on; "zero": pix2pix-zero's step of the
                   size ``rate`` towards the source's cross-attention
    direction      sentences of the source and of the target: the edit goes along the difference of
                   their means, from the source prompt, instead of to the target prompt

    Raises ValueError.
    """

    cfg: float
    cfg_source: float = 1.0
    negative: str = ""
    guidance: str = "negative"
    faithfulness: float = 0.0
    mask: str = "none"
    threshold: float = 0.4
    softness: float = 0.4
    grow: int = 0
    attention: str = "none"
    cross: float = Control.cross
    self_attention: float = Control.self_
    start: float = Mutual.start
    layer: float = Mutual.layer
    rate: float = 0.1
    direction: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def __post_init__(self):
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}.")

    @classmethod
    def of(cls, args: argparse.Namespace) -> Mode:
        """What the options say; read after ``fill_in``. Raises OSError or ValueError for a file of
        sentences that is none."""
        own = {field.name: getattr(args, field.name) for field in dataclasses.fields(cls)}
        if args.direction is not None:
            own["direction"] = sentences(args.direction.read_text("utf-8-sig"))
        return cls(**own)

    def settings(self) -> dict[str, Any]:
        """Guidance and negative prompt, and of the rest what is not as where nothing is said."""
        usual = Mode(self.cfg)
        own = {name: value for name, value in vars(self).items() if value != getattr(usual, name)}
        return {"cfg": self.cfg, "cfg_source": self.cfg_source, "negative": self.negative, **own}


def add_edit_options(parser: argparse.ArgumentParser) -> None:
    """What ``Mode.of`` reads beside the options of an inversion."""
    add = parser.add_argument
    add(
        "--guidance",
        choices=GUIDANCE,
        help="what --cfg leads away from: the negative prompt, as in the paper, or the source prompt: where both "
        "prompts agree the picture is kept (default: negative; source with --preset h-edit or turbo)",
    )
    add(
        "--faithfulness",
        type=float,
        default=Mode.faithfulness,
        help="pull of every step towards the source: 0 is none, FlowAlign has 0.01 (default: %(default)s)",
    )
    add(
        "--mask",
        choices=MASKS,
        default=Mode.mask,
        help="auto: change the picture only where the prompts differ for the model; one more sample a step; "
        "diffedit: by DiffEdit's own rule, 20 more samples (default: %(default)s)",
    )
    add(
        "--threshold",
        type=float,
        default=Mode.threshold,
        help="of the mask auto, 0 to 1: less takes in more of the picture (default: %(default)s)",
    )
    add(
        "--softness",
        type=float,
        default=Mode.softness,
        help="of the mask auto: width of its ramp, 0 is a hard edge (default: %(default)s)",
    )
    add("--grow", type=int, default=Mode.grow, help="latent cells by which the mask auto grows (default: %(default)s)")
    add(
        "--direction",
        type=Path,
        metavar="FILE",
        help="edit along a direction instead of to the target prompt (pix2pix-zero): a text file of sentences that "
        "show what the source has, one a line, then a line ->, then sentences with what it shall have",
    )
    _add_attention_options(add)


def _add_attention_options(add) -> None:
    add(
        "--attention",
        choices=ATTENTION,
        help="what is kept of the source's attention: p2p, Prompt-to-Prompt; masactrl, mutual self-attention, for "
        "other poses and forms; zero, pix2pix-zero's step towards its cross-attention (default: none; p2p with "
        "--preset p2p)",
    )
    for name, whom, what in (
        ("cross", "p2p", "share of the steps with the source's cross-attention"),
        ("self_attention", "p2p", "share of the steps with the source's self-attention"),
        ("start", "masactrl", "share of the steps before it begins"),
        ("layer", "masactrl", "share of the self-attention layers before it begins"),
        ("rate", "zero", "size of its step"),
    ):
        option = f"--{name.replace('_', '-')}"
        add(option, type=float, default=getattr(Mode, name), help=f"with {whom}: {what} (default: %(default).3g)")


def passes_of(mode: Mode) -> int:
    """How often an edit goes along the steps: once, and once more for a mask read off them."""
    return 2 if mode.mask == "auto" else 1


def edited_latent(
    mode: Mode,
    model: Pipeline,
    maps: NoiseMaps,
    source: str | list[str],
    target: Prompt,
    *,
    chunk: int = 8,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Tensor:
    """The clean latent (B, C, h, w) of an edit along the maps of ``source``, on ``device``. The
    prompts are one for all, or one for each item; Prompt-to-Prompt needs the target as text.
    Raises BadArgument."""
    maps = prepared(mode, model, maps, source, target, chunk=chunk, device=device, callback=callback)
    return replay(denoiser_of(mode, model, maps, source, target), maps, device=device, callback=callback)


def edited_latents(
    mode: Mode,
    model: Pipeline,
    maps: Sequence[NoiseMaps],
    source: str,
    targets: Sequence[str],
    *,
    chunk: int = 8,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Iterator[Tensor]:
    """``edited_latent`` for each of several targets with its maps: up to ``chunk`` of them in each
    call of the model; one after the other in a mode with attention control."""
    options = {"chunk": chunk, "device": device, "callback": callback}
    if mode.attention != "none":
        for one, target in zip(maps, targets):
            yield edited_latent(mode, model, one, source, target, **options)
        return
    for first in range(0, len(targets), chunk):
        part = slice(first, first + chunk)
        pairs = list(zip(maps[part], targets[part]))
        edits = [prepared(mode, model, one, source, target, **options) for one, target in pairs]
        several = [guided_of(mode, model, source, target) for _, target in pairs]
        yield from replay_several(model.together(several), edits, **options)


def prepared(
    mode: Mode,
    model: Pipeline,
    maps: NoiseMaps,
    source: str | list[str],
    target: str | list[str],
    *,
    chunk: int,
    device: torch.device | str,
    callback: Callback | None,
) -> NoiseMaps:
    """The maps with what the mode says of them: a mask, and faithfulness."""
    if mode.mask != "none":
        maps = masked(maps, mask_for(mode, model, maps, source, target, chunk=chunk, device=device, callback=callback))
    if mode.faithfulness:
        maps = faithful(maps, mode.faithfulness)
    return maps


def latent_of_edits(
    mode: Mode,
    model: Pipeline,
    maps: NoiseMaps,
    source: str,
    edits: Sequence[tuple[str, float]],
    *,
    chunk: int = 8,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Tensor:
    """The same of several edits at once, (prompt, strength), each guided from the source and with a
    mask of its own; outside of all masks the source is kept."""
    from ..models.stable_diffusion import Edit

    wanted = [Edit(*edit) for edit in edits]
    if mode.mask != "none":
        options = {"chunk": chunk, "device": device, "callback": callback}
        masks = [mask_for(mode, model, maps, source, edit.prompt, **options) for edit in wanted]
        wanted = [edit._replace(mask=mask) for edit, mask in zip(wanted, masks)]
        maps = masked(maps, torch.stack(masks).amax(0))
    if mode.faithfulness:
        maps = faithful(maps, mode.faithfulness)
    denoise = model.denoiser_of_edits(source, wanted, source_guidance=mode.cfg_source, negative=mode.negative)
    return replay(denoise, maps, device=device, callback=callback)


def mask_for(
    mode: Mode,
    model: Pipeline,
    maps: NoiseMaps,
    source: str | list[str],
    target: Prompt,
    *,
    chunk: int = 8,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Tensor:
    """The mask (B, 1, h, w) of an edit; arguments as for ``edited_latent``."""
    goal = towards(mode, model, source, target)
    if mode.mask == "diffedit":
        return diffedit_mask(model, maps, source, goal, device=device)
    same_guidance = model.denoiser(goal, guidance=mode.cfg_source, negative=mode.negative)
    amount = difference(same_guidance, maps, chunk=chunk, device=device, callback=callback)
    return mask_of(amount, threshold=mode.threshold, softness=mode.softness, grow=mode.grow)


def masked(maps: NoiseMaps, mask: Tensor) -> NoiseMaps:
    """Maps with a mask, within the one that they have."""
    mask = mask.to(maps.latents)
    return dataclasses.replace(maps, mask=mask if maps.mask is None else torch.minimum(mask, maps.mask))


def towards(mode: Mode, model: Pipeline, source: str | list[str], target: Prompt) -> Prompt:
    """What the edit is led to: the target prompt, or the source prompt and a direction."""
    return target if mode.direction is None else model.moved(source, *mode.direction)


def denoiser_of(mode: Mode, model: Pipeline, maps: NoiseMaps, source: str | list[str], target: Prompt) -> Denoise:
    """What a replay of the maps asks. Raises BadArgument."""
    from ..models.attention import controlled
    from ..models.zero_shot import nearer

    if mode.attention == "none":
        return model.alone(guided_of(mode, model, source, target))
    goal, options = towards(mode, model, source, target), {"guidance": mode.cfg, "negative": mode.negative}
    options["source_guidance"] = mode.cfg_source if mode.guidance == "source" else None
    if mode.attention == "zero":
        return nearer(model, maps, source, goal, rate=mode.rate, **options)
    if mode.attention == "masactrl":
        return controlled(model, maps, source, goal, mutual=Mutual(mode.start, mode.layer), **options)
    words = _words(model, source, target if mode.direction is None else source)
    return controlled(model, maps, source, goal, control=Control(words, mode.cross, mode.self_attention), **options)


def guided_of(mode: Mode, model: Pipeline, source: str | list[str], target: str | list[str]) -> Guided:
    """What a replay without attention control asks, and makes of it."""
    from ..models.stable_diffusion import Edit

    goal = towards(mode, model, source, target)
    if mode.guidance == "negative":
        return model.guided(goal, guidance=mode.cfg, negative=mode.negative)
    edits = [Edit(goal, mode.cfg)]
    return model.guided_of_edits(source, edits, source_guidance=mode.cfg_source, negative=mode.negative)


def _words(model: Pipeline, source: str | list[str], target: str | list[str]) -> WordMap:
    """The word map of two prompts, or of pairs of prompts whose words lie alike. Raises ValueError
    for others."""
    pairs = [(source, target)] if isinstance(source, str) else list(zip(source, target))
    first, *others = (align(model.tokens(one), model.tokens(other)) for one, other in pairs)
    if not all(torch.equal(first.taken, other.taken) and torch.equal(first.own, other.own) for other in others):
        raise ValueError("Prompt-to-Prompt for a batch needs prompts whose words take over from each other alike.")
    return first


def fill_in_mode(args: argparse.Namespace, defaults: Mapping[str, Any]) -> None:
    """Give guidance and attention their values where the command line has none."""
    for name in ("guidance", "attention"):
        if getattr(args, name, None) is None:
            setattr(args, name, defaults.get(name, getattr(Mode, name)))
