"""``python -m ddpm_core edit``: one picture, edited by prompts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from ..demo.words import warning
from ..inversions.choice import invert_by
from ..measure.pictures import load_picture, save_picture, to_image
from .editing import Mode, add_edit_options, edited_latent, passes_of
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
        required=True,
        help="a prompt that says what it shall show; give it several times to edit several ways from one inversion",
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
    for option, prompts in (("--source", [args.source]), ("--target", args.target)):
        for prompt in prompts:
            check_prompt(option, prompt)
    mode = Mode.of(args)
    if args.model is None:
        _warn(args.source, *args.target)
    model = load_model(args)
    x0 = model.encode(load_picture(args.image, side_of(args, model), model.cell)).to(args.device)
    source = model.denoiser(args.source, guidance=args.cfg_source, negative=args.negative)
    plan = plan_of(args, model)
    with tqdm(total=(args.steps - args.skip) * (1 + passes_of(mode) * len(args.target)), unit="step") as bar:
        settings = {"chunk": args.chunk, "cap": args.cap, "callback": stage(bar, "inverting")}
        maps = invert_by(args.inversion, source, x0, plan, **settings)
        for prompt, out in zip(args.target, outs):
            options = {"chunk": args.chunk, "device": args.device, "callback": stage(bar, "editing")}
            edited = edited_latent(mode, model, maps, args.source, prompt, **options)
            save_picture(to_image(model.decode(edited)[0]), out)
    for out in outs:
        print(out)
