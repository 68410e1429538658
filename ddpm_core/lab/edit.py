"""``python -m ddpm_core edit``: one picture, edited by prompts."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from tqdm import tqdm

from ..demo.words import warning
from ..inversions.choice import invert_by
from ..measure.pictures import load_picture, save_picture, to_image
from .editing import Mode, add_edit_options, edited_latents, latent_of_edits, passes_of
from .options import (
    add_inversion_options,
    add_model_options,
    check_device,
    check_prompt,
    fill_in,
    load_model,
    plan_of,
    prepare_out,
    side_of,
    stage,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--image", type=Path, required=True, help="the picture to edit")
    add("--source", required=True, help="a prompt that says what the picture shows; may be empty")
    add(
        "--target",
        action="append",
        default=[],
        help="a prompt that says what it shall show; give it several times to edit several ways from one inversion",
    )
    add(
        "--edit",
        action="append",
        default=[],
        type=one_edit,
        metavar="PROMPT@STRENGTH",
        help="instead of --target: one of several edits that are made at once, the source prompt with one change, for "
        "instance 'a red car on a road@5'; a strength below 0 takes away what the prompt adds. Guidance is from the "
        "source, and with --mask each has a mask of its own",
    )
    add(
        "--out",
        type=Path,
        required=True,
        help="the picture to write; several targets get -1, -2, ... before the ending",
    )
    add_model_options(parser)
    add_inversion_options(parser)
    add_edit_options(parser)


def _warn(*prompts: str) -> None:
    """Say which words the demo model does not know."""
    problem = warning(" ".join(prompts))
    if problem:
        print(f"note: {problem} Give --model a Stable Diffusion checkpoint for other pictures.", file=sys.stderr)


def run(args: argparse.Namespace) -> None:
    """Invert one picture and replay it under every target prompt."""
    outs = [args.out]
    if len(args.target) > 1:
        outs = [args.out.with_stem(f"{args.out.stem}-{i + 1}") for i in range(len(args.target))]
    for out in outs:
        prepare_out(out)
    check_device(args.device)
    if not args.image.is_file():
        what = "is a folder" if args.image.is_dir() else "does not exist"
        raise ValueError(f"--image must be a picture file; {args.image} {what}.")
    fill_in(args)
    edits = [prompt for prompt, _ in args.edit]
    for option, prompts in (("--source", [args.source]), ("--target", args.target), ("--edit", edits)):
        for prompt in prompts:
            check_prompt(option, prompt)
    mode = Mode.of(args)
    _check_together(args, mode)
    if args.model is None:
        _warn(args.source, *args.target, *edits)
    model = load_model(args)
    x0 = model.encode(load_picture(args.image, side_of(args, model), model.cell)).to(args.device)
    source = model.denoiser(args.source, guidance=args.cfg_source, negative=args.negative)
    plan = plan_of(args, model)
    masks = len(args.edit) * (passes_of(mode) - 1)
    passes = 1 + masks if args.edit else passes_of(mode) * len(args.target)
    with tqdm(total=(args.steps - args.skip) * (1 + passes), unit="step") as bar:
        settings = {"chunk": args.chunk, "cap": args.cap, "callback": stage(bar, "inverting")}
        maps = invert_by(args.inversion, source, x0, plan, **settings)
        options = {"chunk": args.chunk, "device": args.device, "callback": stage(bar, "editing")}
        if args.edit:
            latents = [latent_of_edits(mode, model, maps, args.source, args.edit, **options)]
        else:
            latents = edited_latents(mode, model, [maps] * len(outs), args.source, args.target, **options)
        for edited, out in zip(latents, outs):
            save_picture(to_image(model.decode(edited)[0]), out)
    for out in outs:
        print(out)


def one_edit(text: str) -> tuple[str, float]:
    """ "PROMPT@STRENGTH" as (prompt, strength)."""
    prompt, _, strength = text.rpartition("@")
    try:
        if prompt and math.isfinite(float(strength)):
            return prompt, float(strength)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a prompt, @ and a number, like 'a red car@5'; got {text!r}")


def _check_together(args: argparse.Namespace, mode: Mode) -> None:
    if bool(args.target) == bool(args.edit):
        raise ValueError("Either --target or --edit must be given, once or several times.")
    if args.edit and (mode.attention != "none" or mode.direction is not None):
        raise ValueError("--edit goes without --attention and --direction.")
