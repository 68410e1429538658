"""The edit of the commands: what guides it, how faithful it is, and where it may change the
picture."""

from __future__ import annotations

import argparse
import dataclasses

import torch
from torch import Tensor

from ..denoise import Callback, Denoise
from ..edits.faithful import faithful
from ..maps import NoiseMaps
from ..models.stable_diffusion import Pipeline
from ..regions import difference, mask_of
from ..replay import replay


def add_edit_options(parser: argparse.ArgumentParser) -> None:
    """--guidance, --faithfulness, --mask, --threshold, --softness and --grow; read by
    ``edited_latent``."""
    add = parser.add_argument
    add(
        "--guidance",
        choices=["negative", "source"],
        default="negative",
        help="what --cfg leads away from: the negative prompt, as in the paper, or the source prompt: where both "
        "prompts agree the picture is kept (default: %(default)s)",
    )
    add(
        "--faithfulness",
        type=float,
        default=0.0,
        help="pull of every step towards the source: 0 is none, FlowAlign has 0.01 (default: %(default)s)",
    )
    add(
        "--mask",
        choices=["none", "auto"],
        default="none",
        help="auto: change the picture only where the prompts differ for the model; one more sample a step "
        "(default: %(default)s)",
    )
    add(
        "--threshold",
        type=float,
        default=0.4,
        help="of the mask, 0 to 1: less takes in more of the picture (default: %(default)s)",
    )
    add(
        "--softness",
        type=float,
        default=0.4,
        help="of the mask: width of its ramp, 0 is a hard edge (default: %(default)s)",
    )
    add("--grow", type=int, default=0, help="latent cells by which the mask grows (default: %(default)s)")


def mode_of(args: argparse.Namespace) -> dict:
    """The options of ``add_edit_options`` that are not what they are where nothing is said."""
    bare = argparse.ArgumentParser()
    add_edit_options(bare)
    usual = vars(bare.parse_args([]))
    return {name: getattr(args, name) for name in usual if getattr(args, name) != usual[name]}


def calls_of(args: argparse.Namespace) -> int:
    """How often an edit goes along the steps: once, and once more for its mask."""
    return 2 if args.mask == "auto" else 1


def edited_latent(
    args: argparse.Namespace,
    model: Pipeline,
    maps: NoiseMaps,
    source: str,
    target: str,
    callback: Callback | None = None,
) -> Tensor:
    """The clean latent (B, C, h, w) of an edit along the maps of ``source``, on --device. Raises
    BadArgument."""
    if args.mask == "auto":
        mask = read_mask(args, model, maps, target, callback)
        maps = dataclasses.replace(maps, mask=mask if maps.mask is None else torch.minimum(mask, maps.mask))
    if args.faithfulness:
        maps = faithful(maps, args.faithfulness)
    return replay(_denoiser(args, model, source, target), maps, device=args.device, callback=callback)


def read_mask(
    args: argparse.Namespace, model: Pipeline, maps: NoiseMaps, target: str, callback: Callback | None = None
) -> Tensor:
    """Where the target differs from what the maps were made with: (B, 1, h, w)."""
    same_guidance = model.denoiser(target, guidance=args.cfg_source, negative=args.negative)
    amount = difference(same_guidance, maps, chunk=args.chunk, device=args.device, callback=callback)
    return mask_of(amount, threshold=args.threshold, softness=args.softness, grow=args.grow)


def _denoiser(args: argparse.Namespace, model: Pipeline, source: str, target: str) -> Denoise:
    if args.guidance == "negative":
        return model.denoiser(target, guidance=args.cfg, negative=args.negative)
    options = {"guidance": args.cfg, "source_guidance": args.cfg_source, "negative": args.negative}
    return model.denoiser_from_source(source, target, **options)
