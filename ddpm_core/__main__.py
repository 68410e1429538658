"""Command line: ``python -m ddpm_core demo`` and ``python -m ddpm_core edit``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from .edits import paint, parse_color, push_color, shift
from .inversion import invert
from .pictures import labelled_grid, load_picture, to_image
from .pipeline import Pipeline
from .replay import replay
from .steps import Solver

PAPER_GUIDANCE = 3.5, 15.0  # of the inversion and of the edit
PAPER_SKIP = 0.36  # of the steps
DEMO_GUIDANCE = 1.0, 3.0  # for the demo model, which is small


def stage(bar, name: str) -> Callable:
    """The callback of an inversion or a replay that moves a progress bar by one step."""
    bar.set_description(name)
    return lambda index, prediction, latent: bar.update()


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device must be one that torch can use here; got {name!r}: {str(error).splitlines()[0]}") from error


def pixels(text: str) -> int:
    if not text.isdecimal() or int(text) < 8:
        raise argparse.ArgumentTypeError(f"must be a number of pixels, 8 or more; got {text!r}")
    return int(text)


def prepare_out(path: Path) -> None:
    """Make the folder of a picture, and refuse an ending that no picture has, before any work is done."""
    from PIL import Image

    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"--out must end like a picture, for instance .png; got {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)


def edit(args: argparse.Namespace) -> None:
    """Invert one picture and replay it under every target prompt."""
    from .demo.model import FOLDER

    prepare_out(args.out)
    check_device(args.device)
    if not args.image.is_file():
        raise ValueError(f"--image must be a picture file; {args.image} does not exist.")
    skip = round(PAPER_SKIP * args.steps) if args.skip is None else args.skip
    if not 0 <= skip < args.steps:
        raise ValueError(f"--skip must lie in [0, {args.steps - 1}] for {args.steps} steps; got {skip}.")
    model = Pipeline.load(args.model or FOLDER, args.device, getattr(torch, args.dtype), args.config)
    side = args.size or model.pipe.unet.config.sample_size * model.cell
    x0 = model.encode(load_picture(args.image, side, model.cell)).to(args.device)
    of_source, of_target = PAPER_GUIDANCE if args.model else DEMO_GUIDANCE
    of_source = of_source if args.cfg_source is None else args.cfg_source
    of_target = of_target if args.cfg is None else args.cfg
    source = model.denoiser(args.source, guidance=of_source, negative=args.negative)
    options = {"skip": skip, "eta": args.eta, "solver": Solver(args.solver), "seed": args.seed, "chunk": args.chunk}
    outs = [args.out] if len(args.target) == 1 else [args.out.with_stem(f"{args.out.stem}-{i + 1}") for i in range(len(args.target))]
    with tqdm(total=(args.steps - skip) * (1 + len(args.target)), unit="step") as bar:
        maps = invert(source, x0, model.sigmas(args.steps), **options, callback=stage(bar, "inverting"))
        for prompt, out in zip(args.target, outs):
            target = model.denoiser(prompt, guidance=of_target, negative=args.negative)
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
        pushed = push_color(invert_with("", 1.0, middle), model.encode(painted), cells, strength=0.15)
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
    add("--model", type=Path, help="a diffusers folder or a .safetensors checkpoint of Stable Diffusion 1, 2 or XL (default: the embedded demo model)")
    add("--config", type=Path, help="with a single-file checkpoint on a machine without a connection: a diffusers folder of the same kind of model")
    add("--steps", type=int, default=100, help="steps of the schedule; paper: 100, and 20 to 50 are often as good (default: %(default)s)")
    add("--skip", type=int, help="steps left out at the noisy end: more keeps more; paper: 36, useful 0 to 40 of 100 (default: 36 %% of the steps)")
    add("--cfg", type=float, help="guidance towards the target; paper: 15, useful 7 to 18 (default: 15; 3 with the demo model)")
    add("--cfg-source", type=float, help="guidance of the inversion; paper: 3.5, and 1 is twice as fast (default: 3.5; 1 with the demo model)")
    add("--negative", default="", help="negative prompt of both")
    add("--eta", type=float, default=1.0, help="noise of the steps: 1 is DDPM (paper), 0 is DDIM (default: %(default)s)")
    add("--solver", choices=[s.value for s in Solver], default=Solver.FIRST_ORDER.value, help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the noise maps (default: %(default)s)")
    add("--chunk", type=int, default=8, help="timesteps in one call of the model when inverting (default: %(default)s)")
    add("--size", type=pixels, help="pixels of the shorter side (default: what the model was trained on)")
    add("--device", default="cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu", help="(default: %(default)s)")
    add("--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="precision of the model (default: %(default)s)")
    two.set_defaults(run=edit)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # their notes on optional packages are not for the person who edits a picture
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
