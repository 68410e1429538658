"""The settings that the commands share: a model, an inversion, and what follows from them where
nothing is said."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import torch

from ..inversions.choice import INVERSIONS
from ..inversions.turbo import CAP
from ..plan import DEMO, PAPER, PRESETS, TURBO, Plan
from ..steps import Solver
from .editing import COMBINATIONS, fill_in_mode

if TYPE_CHECKING:
    from ..models.stable_diffusion import Pipeline

_SHARE, _POSITIVE = (0, 1), (0, math.inf)
RANGES = {  # of options: finite numbers
    **dict.fromkeys(("cfg", "cfg_source", "faithfulness", "softness", "grow", "rate", "cap"), _POSITIVE),
    **dict.fromkeys(("eta", "cross", "self_attention", "start", "layer"), _SHARE),
    "threshold": (1e-6, 1),
}
SMALLEST = 64  # pixels a side: eight latent cells, which the model halves three times


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--model, --config, --size, --device and --dtype; read by ``load_model`` and ``side_of``."""
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        help="a diffusers folder or a .safetensors checkpoint of Stable Diffusion 1, 2 or XL "
        "(default: the embedded demo model)",
    )
    add(
        "--config",
        type=Path,
        help="with a single-file checkpoint on a machine without a connection: "
        "a diffusers folder of the same kind of model",
    )
    add(
        "--size",
        type=pixels,
        help="pixels of the shorter side, 64 or more, in whole latent cells (default: what the model was trained on)",
    )
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu",
        help="(default: %(default)s)",
    )
    add(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        default="float32",
        help="precision of the model (default: %(default)s)",
    )


def add_inversion_options(parser: argparse.ArgumentParser) -> None:
    """--preset, --steps, --skip, --cfg, --cfg-source, --negative, --eta, --solver, --seed, --chunk
    and --cap; ``fill_in`` completes what is not given."""
    add = parser.add_argument
    add(
        "--preset",
        choices=[*PRESETS, *COMBINATIONS],
        default="quality",
        help="quality: 100 steps, as in the paper; fast: 10 steps; p2p: the paper's combination with Prompt-to-Prompt, "
        "100 steps, skip 12; h-edit: 50 steps, skip 15, guided from the source; turbo: 4 steps, for SDXL-Turbo and "
        "SD-Turbo, as in TurboEdit (default: %(default)s)",
    )
    add("--steps", type=int, help="steps of the schedule; paper: 100 (default: the preset's)")
    add(
        "--skip",
        type=int,
        help="steps left out at the noisy end: more keeps more; paper: 36, useful 0 to 40 of 100 "
        "(default: 36 %% of the steps, or the preset's share)",
    )
    add(
        "--cfg",
        type=float,
        help="guidance towards the target; paper: 15, useful 7 to 18 (default: 15; 3 with the demo model)",
    )
    add(
        "--cfg-source",
        type=float,
        help="guidance of the inversion; paper: 3.5, and 1 is twice as fast (default: 3.5; 1 with the demo model)",
    )
    add("--negative", default="", help="negative prompt of both")
    add(
        "--eta",
        type=float,
        default=1.0,
        help="noise of the steps: 1 is DDPM (paper), 0 is DDIM; less keeps more (default: %(default)s)",
    )
    add("--solver", choices=[s.value for s in Solver], default=Solver.FIRST_ORDER.value, help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the noise maps (default: %(default)s)")
    add(
        "--chunk",
        type=int,
        default=8,
        help="timesteps in one call of the model when inverting, and edits in one call after it (default: %(default)s)",
    )
    add(
        "--cap",
        type=float,
        default=CAP,
        help="with --preset turbo: most that the last step may hold of the source, as a norm at 512 pixels; less "
        "leaves fewer traces, 0 is no cap and gives the source back exactly (default: %(default)s)",
    )


def pixels(text: str) -> int:
    if not text.isdecimal() or int(text) < SMALLEST:
        raise argparse.ArgumentTypeError(f"must be a number of pixels, {SMALLEST} or more; got {text!r}")
    return int(text)


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have, or that holds no numbers (meta)."""
    try:
        torch.zeros(1, device=name).item()
    except Exception as error:  # every backend of torch has its own
        what = str(error).partition("\n")[0]
        raise ValueError(f"--device must be one that torch can use here; got {name!r}: {what}") from error


def check_prompt(option: str, text: str) -> None:
    """Refuse what a terminal of another encoding has sent."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{option} must be text in UTF-8; got {text!r}.") from error


def _check_ranges(args: argparse.Namespace) -> None:
    """Refuse numbers out of ``RANGES``, NaN and infinity."""
    for name, (low, high) in RANGES.items():
        value = getattr(args, name, low)  # not every command has all
        if not low <= value <= high or math.isinf(value):
            limits = f"{low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
            raise ValueError(f"--{name.replace('_', '-')} must be {limits}; got {value:g}.")


def fill_in(args: argparse.Namespace) -> None:
    """Give steps, skip, guidance and the inversion their values where the command line has none.
    Raises ValueError for values that do not fit, before any work."""
    preset, more = COMBINATIONS.get(args.preset) or (PRESETS[args.preset], {})
    args.steps = preset.steps if args.steps is None else args.steps
    if args.steps < 1:
        raise ValueError(f"--steps must be 1 or more; got {args.steps}.")
    if args.skip is None:
        args.skip = (preset if args.preset in COMBINATIONS else PAPER).skip_of(args.steps)
    if not 0 <= args.skip < args.steps:
        raise ValueError(f"--skip must lie in [0, {args.steps - 1}] for {args.steps} steps; got {args.skip}.")
    fill_in_mode(args, more)
    args.inversion = getattr(args, "inversion", None) or more.get("inversion", INVERSIONS[0])
    preset = preset if args.model or preset is TURBO else DEMO
    args.cfg_source = preset.guidance_source if args.cfg_source is None else args.cfg_source
    args.cfg = preset.guidance_target if args.cfg is None else args.cfg
    _check_ranges(args)
    if args.chunk < 1:
        raise ValueError(f"--chunk must be 1 or more timesteps a call; got {args.chunk}.")
    last = args.seed + max(getattr(args, "seeds", 1), 1) - 1  # a set of pictures has several
    if not 0 <= args.seed <= last < 2**64:
        raise ValueError(f"--seed must lie in [0, 2^64), with all the seeds from it on; got {args.seed} to {last}.")
    check_prompt("--negative", args.negative)


def plan_of(args: argparse.Namespace, model: Pipeline) -> Plan:
    """The settings of an inversion; says so where the steps begin far below the model's noisy end.
    Raises BadArgument for more steps than the model has."""
    sigmas = model.sigmas(args.steps, trailing=args.inversion == "turbo")
    known = len(model.sigma_of_timestep)
    first = int((model.sigma_of_timestep < sigmas[0]).sum())
    better = known // (known // args.steps)
    if first < 0.9 * known and better > args.steps:
        print(
            f"Note: {args.steps} steps, evenly spaced, begin at timestep {first} of {known}: less can change than the "
            f"skip says. --steps {better} begin near the top.",
            file=sys.stderr,
        )
    solver = Solver(args.solver)
    return Plan(sigmas, args.skip, args.eta, solver, seed=args.seed, guidance=args.cfg_source)


def load_model(args: argparse.Namespace) -> Pipeline:
    """--model, or the embedded demo model. Raises what ``Pipeline.load`` does."""
    from ..demo.model import FOLDER
    from ..models.stable_diffusion import Pipeline

    return Pipeline.load(args.model or FOLDER, args.device, getattr(torch, args.dtype), args.config)


def side_of(args: argparse.Namespace, model: Pipeline) -> int:
    """--size, or the side in pixels that the model was trained on."""
    return args.size or model.pipe.unet.config.sample_size * model.cell


def stage(bar, name: str) -> Callable:
    """The callback of an inversion or a replay that moves a progress bar by one step."""
    bar.set_description(name)
    return lambda index, prediction, latent: bar.update()


def prepare_out(path: Path) -> None:
    """Make the folder of a picture, and refuse a path that no picture can be written to, before any
    work is done."""
    from PIL import Image

    kind = Image.registered_extensions().get(path.suffix.lower())
    try:
        Image.new("RGB", (16, 16)).save(BytesIO(), format=kind or "none")
    except Exception as error:  # what the many formats raise that cannot be written, or not in colour
        raise ValueError(f"--out must end like a picture, for instance .png; got {path}.") from error
    if path.is_dir():
        raise ValueError(f"--out must be a picture file; {path} is a folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=path.parent):  # raises OSError where nothing can be written
        pass
