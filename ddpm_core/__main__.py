"""Command line: ``python -m ddpm_core`` and one of demo, edit, bench, speed, evaluate."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from . import manifest, speed
from .bench import command as bench
from .edits import paint, parse_color, push_color, shift
from .inversion import invert
from .options import (
    DEMO_GUIDANCE,
    PAPER_SKIP,
    add_inversion_options,
    add_model_options,
    check_device,
    fill_in,
    load_model,
    side_of,
)
from .pictures import labelled_grid, load_picture, to_image
from .pipeline import Pipeline
from .replay import replay
from .steps import Solver


def stage(bar, name: str) -> Callable:
    """The callback of an inversion or a replay that moves a progress bar by one step."""
    bar.set_description(name)
    return lambda index, prediction, latent: bar.update()


def prepare_out(path: Path) -> None:
    """Make the folder of a picture, and refuse an ending that no picture has, before any work is done."""
    from PIL import Image

    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"--out must end like a picture, for instance .png; got {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)


def edit(args: argparse.Namespace) -> None:
    """Invert one picture and replay it under every target prompt."""
    prepare_out(args.out)
    check_device(args.device)
    if not args.image.is_file():
        raise ValueError(f"--image must be a picture file; {args.image} does not exist.")
    fill_in(args)
    model = load_model(args)
    x0 = model.encode(load_picture(args.image, side_of(args, model), model.cell)).to(args.device)
    source = model.denoiser(args.source, guidance=args.cfg_source, negative=args.negative)
    options = {"skip": args.skip, "eta": args.eta, "solver": Solver(args.solver), "seed": args.seed, "chunk": args.chunk}
    outs = [args.out] if len(args.target) == 1 else [args.out.with_stem(f"{args.out.stem}-{i + 1}") for i in range(len(args.target))]
    with tqdm(total=(args.steps - args.skip) * (1 + len(args.target)), unit="step") as bar:
        maps = invert(source, x0, model.sigmas(args.steps), **options, callback=stage(bar, "inverting"))
        for prompt, out in zip(args.target, outs):
            target = model.denoiser(prompt, guidance=args.cfg, negative=args.negative)
            edited = replay(target, maps, device=args.device, callback=stage(bar, "editing"))
            to_image(model.decode(edited)[0]).save(out)
    for out in outs:
        print(out)


def demo(args: argparse.Namespace) -> None:
    """Edit a drawn scene with the embedded model in every way, and show the results side by side."""
    from .demo import scenes
    from .demo.model import FOLDER

    prepare_out(args.out)
    if args.steps < 10:
        raise ValueError(f"--steps must be 10 or more; got {args.steps}.")
    skip, middle = round(PAPER_SKIP * args.steps), args.steps // 2
    model = Pipeline.load(FOLDER)
    scene = scenes.scene_with(args.layout, shape="star", fill="striped", color="red", background="blue")
    picture, mask, prompt = scenes.render([scene]), scenes.coverage([scene]), scenes.caption(scene)
    x0, sigmas = model.encode(picture), model.sigmas(args.steps)
    with tqdm(total=5 * (args.steps - skip) + 2 * (args.steps - middle) + 2 * args.steps, unit="step") as bar:

        def invert_with(words: str, guidance: float, first: int):
            return invert(model.denoiser(words, guidance=guidance), x0, sigmas, skip=first, callback=stage(bar, "inverting"))

        def replay_with(words: str, guidance: float, maps):
            return model.decode(replay(model.denoiser(words, guidance=guidance), maps, callback=stage(bar, "editing")))[0]

        of_source, of_target = DEMO_GUIDANCE
        maps = invert_with(prompt, of_source, skip)
        panels = [("source", picture[0]), ("reconstruction, exact\nbut for the autoencoder", replay_with(prompt, of_source, maps))]
        for old, new in (("red", "green"), ("star", "heart"), ("blue", "yellow")):
            words = prompt.replace(old, new)
            panels.append((words.replace(" on ", "\non "), replay_with(words, of_target, maps)))
        whole = shift(invert_with(prompt, 1.0, 0), -4, 0)
        panels.append(("shifted by 4 cells\nto the left", replay_with(prompt, 1.0, whole)))
        painted = paint(picture.movedim(1, -1), mask.movedim(1, -1), parse_color("#22aa33"), keep_lights=True).movedim(-1, 1)
        cells = torch.nn.functional.avg_pool2d(mask, model.cell)
        pushed = push_color(invert_with("", 1.0, middle), model.encode(painted), cells, strength=0.5)
        panels.append(("green pushed into the\nshape, no prompt", replay_with("", 1.0, pushed)))
    labelled_grid([panels]).save(args.out)
    print(f"The result lies in {args.out.resolve()}")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m ddpm_core", description="Edit pictures through edit-friendly noise maps (arXiv 2304.06140).")
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("demo", help="edit a drawn scene with the embedded model and show it", description=demo.__doc__)
    one.add_argument("--out", type=Path, default=Path("out/demo.png"), help="the picture to write (default: %(default)s)")
    one.add_argument("--steps", type=int, default=50, help="(default: %(default)s)")
    one.add_argument("--layout", type=int, default=12, help="which scene (default: %(default)s)")
    one.set_defaults(run=demo)
    two = commands.add_parser("edit", help="edit a picture of your own by prompts", description=edit.__doc__)
    add = two.add_argument
    add("--image", type=Path, required=True, help="the picture to edit")
    add("--source", required=True, help="a prompt that says what the picture shows; may be empty")
    add("--target", action="append", required=True, help="a prompt that says what it shall show; give it several times to edit several ways from one inversion")
    add("--out", type=Path, required=True, help="the picture to write; several targets get -1, -2, ... before the ending")
    add_model_options(two)
    add_inversion_options(two)
    two.set_defaults(run=edit)
    for module in (bench, speed, manifest):
        module.add_command(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # their notes on optional packages are not for the person who edits a picture
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"error: {error}; install what is missing with: python -m pip install -r requirements.txt", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; bench and evaluate go on from here when they are started again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
