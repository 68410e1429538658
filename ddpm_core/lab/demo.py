"""``python -m ddpm_core demo``: what the maps can do, in one picture."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from ..demo import scenes
from ..demo.model import FOLDER
from ..edits.color import paint, parse_color, push_color
from ..edits.shift import shift
from ..inversions.edit_friendly import invert
from ..measure.pictures import labelled_grid, save_picture
from ..models.stable_diffusion import Pipeline
from ..plan import DEMO, Plan
from ..replay import replay
from .editing import WIDE, Mode, edited_latent
from .options import prepare_out, stage


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, default=Path("out/demo.png"), help="the picture to write (default: %(default)s)")
    add("--steps", type=int, default=DEMO.steps, help="(default: %(default)s)")
    add("--layout", type=int, default=12, help="which scene (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Edit a drawn scene with the embedded model in every way, and show the results side by
    side."""
    prepare_out(args.out)
    if args.steps < 10:
        raise ValueError(f"--steps must be 10 or more; got {args.steps}.")
    skip, middle = DEMO.skip_of(args.steps), args.steps // 2
    model = Pipeline.load(FOLDER)
    scene = scenes.scene_with(args.layout, shape="star", fill="striped", color="red", background="blue")
    picture, mask, prompt = scenes.render([scene]), scenes.coverage([scene]), scenes.caption(scene)
    x0, sigmas = model.encode(picture), model.sigmas(args.steps)
    with tqdm(total=8 * (args.steps - skip) + 2 * (args.steps - middle) + 2 * args.steps, unit="step") as bar:

        def invert_with(words: str, guidance: float, first: int):
            denoise = model.denoiser(words, guidance=guidance)
            return invert(denoise, x0, Plan(sigmas, first), callback=stage(bar, "inverting"))

        def replay_with(words: str, guidance: float, maps):
            denoise = model.denoiser(words, guidance=guidance)
            return model.decode(replay(denoise, maps, callback=stage(bar, "editing")))[0]

        maps = invert_with(prompt, DEMO.guidance_source, skip)
        panels = [
            ("source", picture[0]),
            ("reconstruction, exact\nbut for the autoencoder", replay_with(prompt, DEMO.guidance_source, maps)),
        ]
        mode = Mode(DEMO.guidance_target, DEMO.guidance_source, **WIDE)
        for old, new in (("red", "green"), ("star", "heart"), ("blue", "yellow")):
            words = prompt.replace(old, new)
            edited = edited_latent(mode, model, maps, prompt, words, callback=stage(bar, "editing"))
            panels.append((words.replace(" on ", "\non "), model.decode(edited)[0]))
        shifted = shift(invert_with(prompt, 1.0, 0), -4, 0)
        panels.append(("shifted by 4 cells\nto the left", replay_with(prompt, 1.0, shifted)))
        last = picture.movedim(1, -1), mask.movedim(1, -1)
        painted = paint(*last, parse_color("#22aa33"), keep_lights=True).movedim(-1, 1)
        cells = torch.nn.functional.avg_pool2d(mask, model.cell)
        pushed = push_color(invert_with("", 1.0, middle), model.encode(painted), cells, strength=0.5)
        panels.append(("green pushed into the\nshape, no prompt", replay_with("", 1.0, pushed)))
    save_picture(labelled_grid([panels]), args.out)
    print(f"The result lies in {args.out.resolve()}")
