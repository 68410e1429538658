"""What an edit costs in time and memory: ``python -m ddpm_core speed``."""

from __future__ import annotations

import argparse
import csv
import ctypes
import math
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...denoise import Denoise, ran_out_of_memory
from ...inversions.edit_friendly import auxiliary_path, invert
from ...models.stable_diffusion import Pipeline
from ...plan import Plan
from ...replay import replay
from ...steps import schedule
from ..options import check_device


class Preset(NamedTuple):
    steps: int
    skip: int
    cfg_source: float
    cfg: float


PRESETS = {
    "paper": Preset(steps=100, skip=36, cfg_source=3.5, cfg=15.0),
    "fast": Preset(steps=10, skip=4, cfg_source=3.5, cfg=15.0),
}
QUICK = {
    "paper": Preset(steps=10, skip=4, cfg_source=3.5, cfg=15.0),
    "fast": Preset(steps=4, skip=1, cfg_source=1.0, cfg=15.0),
}
CHUNK = 8  # timesteps in one call of an inversion
CHUNKS = 1, 2, 4, 8, 16, 32
SIZES = 0.5, 1, 1.5, 2  # of the model's own latent
BATCHES = 1, 2, 4

SOURCE, TARGET = "a striped red star on a blue background", "a striped green star on a blue background"
M_MMAP_THRESHOLD = -3  # of glibc's mallopt
TOKENS = 77  # of a prompt of Stable Diffusion
# The published configurations of the real UNets; what is not named is diffusers' default.
RANDOM = {
    "sd15": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    },
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    },
}

Run = Callable[
    [], tuple[Tensor, int]
]  # the clean latent (B, C, *S), and the bytes kept from the inversion for the edit


def authors(model: Pipeline, x0: Tensor, preset: Preset) -> Run:
    """An edit in the order of the authors' code: the whole path inverted, one timestep and one
    guidance branch a call, the state in x0's dtype.

    The same mathematics as ``ours``, the last residual included (the authors' code puts 0 there, at
    the same cost).
    """
    source, target = (_one_branch_a_call(model, *side) for side in ((SOURCE, preset.cfg_source), (TARGET, preset.cfg)))
    sigmas = model.sigmas(preset.steps)

    def run() -> tuple[Tensor, int]:
        path = auxiliary_path(x0, Plan(sigmas)).to(x0.device)
        steps = schedule(sigmas)
        residuals = [
            x_next - step.mean(x, _at(source, x, step.sigma), None) for step, x, x_next in zip(steps, path, path[1:])
        ]
        x = path[preset.skip]
        for step, residual in zip(steps[preset.skip :], residuals[preset.skip :]):
            x = step.mean(x, _at(target, x, step.sigma), None) + residual
        return x, path.nbytes + sum(residual.nbytes for residual in residuals)

    return run


def ours(model: Pipeline, x0: Tensor, preset: Preset, chunk: int = CHUNK) -> Run:
    """An edit as the package does it."""
    source, target = model.denoiser(SOURCE, guidance=preset.cfg_source), model.denoiser(TARGET, guidance=preset.cfg)
    sigmas = model.sigmas(preset.steps)

    def run() -> tuple[Tensor, int]:
        maps = invert(source, x0, Plan(sigmas, skip=preset.skip), chunk=chunk)
        return replay(target, maps, device=x0.device), sum(
            t.nbytes for t in (maps.sigmas, maps.latents, maps.residuals, maps.predictions)
        )

    return run


def sampling(model: Pipeline, x0: Tensor, steps: int, guidance: float) -> Run:
    """Plain ancestral sampling of a new picture of x0's shape, both guidance branches in one call:
    little but the model's own time."""
    denoise, sigmas = model.denoiser(TARGET, guidance=guidance), model.sigmas(steps)

    def run() -> tuple[Tensor, int]:
        generator = torch.Generator(x0.device).manual_seed(0)
        x = sigmas[0].item() * torch.randn(x0.shape, generator=generator, device=x0.device)
        for step in schedule(sigmas):
            x = step.mean(x, _at(denoise, x, step.sigma), None) + step.up * torch.randn(
                x0.shape, generator=generator, device=x0.device
            )
        return x, 0

    return run


def _one_branch_a_call(model: Pipeline, prompt: str, guidance: float) -> Denoise:
    without, with_prompt = (model.denoiser(prompt, guidance=branch) for branch in (0.0, 1.0))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        base = without(x, sigma)
        return base + guidance * (with_prompt(x, sigma) - base)

    return denoise


def _at(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    return denoise(x, x.new_full((len(x),), sigma))


def random_unet(config: dict, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """A diffusers UNet with random weights, drawn on the device in the dtype; activations keep
    their size, so half precision does not overflow."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    unet = unet.to(dtype).to_empty(device=device).requires_grad_(False).eval()
    if torch.device(device).type == "meta":
        return unet
    generator = torch.Generator(device).manual_seed(0)
    for name, weights in unet.named_parameters():
        if weights.dim() > 1:
            weights.normal_(0, weights[0].numel() ** -0.5, generator=generator)
        else:
            weights.fill_(0.0 if name.endswith("bias") else 1.0)
    return unet


def random_pipeline(config: dict, device: torch.device | str, dtype: torch.dtype) -> Pipeline:
    """``random_unet`` with random embeddings for prompts (the same for every prompt) and no
    autoencoder: for timing, not for pictures."""
    from diffusers import DDIMScheduler

    from ...demo.model import SCHEDULER

    unet = random_unet(config, device, dtype)
    shapes = [(1, TOKENS, unet.config.cross_attention_dim)] * 2
    if unet.config.addition_embed_type == "text_time":
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        shapes += [(1, pooled)] * 2
    generator = torch.Generator(device).manual_seed(1)
    embeddings = [torch.randn(shape, generator=generator, device=device, dtype=dtype) for shape in shapes]
    vae = SimpleNamespace(config=SimpleNamespace(latent_channels=unet.config.in_channels, block_out_channels=(0,) * 4))
    return Pipeline(
        SimpleNamespace(unet=unet, vae=vae, scheduler=DDIMScheduler(**SCHEDULER), encode_prompt=lambda **_: embeddings)
    )


class Case(NamedTuple):
    """One row to be measured."""

    way: str
    preset: Preset
    x0: Tensor  # (B, C, *S)
    run: Run
    chunk: int | None = None


def evaluations(preset: Preset) -> int:
    """Batch items through the model for one edit by ``ours``."""
    return (preset.steps - preset.skip) * (branches(preset.cfg_source) + branches(preset.cfg))


def branches(guidance: float) -> int:
    """What ``Pipeline.denoiser`` evaluates for one latent."""
    return 1 if guidance in (0, 1) else 2


def tables(model: Pipeline, presets: dict[str, Preset]) -> dict[str, list[Case]]:
    """Everything that is measured; the first row of a table is what its ratios refer to."""
    own = model.pipe.unet.config.sample_size
    paper, fast = presets["paper"], presets["fast"]

    def latent(batch: int = 1, size: int = own) -> Tensor:
        noise = torch.randn(
            batch, model.pipe.unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(0)
        )
        return noise.to(model.device)

    def edit(way: str, preset: Preset, x0: Tensor, chunk: int = CHUNK) -> Case:
        return Case(way, preset, x0, ours(model, x0, preset, chunk), chunk)

    def plain(way: str, like: Preset, x0: Tensor) -> Case:
        steps = math.ceil(evaluations(like) / branches(like.cfg))
        return Case(way, Preset(steps, 0, like.cfg, like.cfg), x0, sampling(model, x0, steps, like.cfg))

    x0, cheap = latent(), paper._replace(cfg_source=1.0)
    return {
        "way": [
            Case("(a) the authors' way", paper, x0, authors(model, x0, paper)),
            edit("(b) ours, the same settings", paper, x0),
            edit("(c) ours, source guidance 1", cheap, x0),
            edit("(d) ours, the fast preset", fast, x0),
            plain("(e) sampling, samples as (b)", paper, x0),
            plain("(e) sampling, samples as (d)", fast, x0),
        ],
        "chunk": [edit(f"chunk {chunk}", paper, x0, chunk) for chunk in CHUNKS],
        "latent size": [
            edit(f"latent {size}", fast, latent(size=size)) for size in (int(own * factor) for factor in SIZES)
        ],
        "batch": [edit(f"batch {batch}", fast, latent(batch)) for batch in BATCHES],
    }


class Meter:
    """While entered, counts and times a UNet's calls: ``sizes`` has the batch items of each,
    ``seconds()`` is the time within them."""

    def __init__(self, unet: nn.Module):
        self.unet, self.device, self.sizes, self.marks = (
            unet,
            unet.device,
            [],
            [],
        )  # diffusers walks all modules for its device, each time

    def __enter__(self) -> Meter:
        self.hooks = [self.unet.register_forward_pre_hook(self._begin), self.unet.register_forward_hook(self._end)]
        return self

    def __exit__(self, *error) -> None:
        for hook in self.hooks:
            hook.remove()

    def _begin(self, module, inputs) -> None:
        self.sizes.append(len(inputs[0]))
        self._mark()

    def _end(self, module, inputs, output) -> None:
        self._mark()

    def _mark(self) -> None:
        if self.device.type == "cuda":  # an event does not hold the queue up
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(clock(self.device))

    def seconds(self) -> float:
        pairs = zip(self.marks[::2], self.marks[1::2])
        return sum(
            begin.elapsed_time(end) / 1000 if hasattr(begin, "elapsed_time") else end - begin for begin, end in pairs
        )


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    torch.get_device_module(device).synchronize()
    return time.perf_counter()


def peak_memory(run: Run, device: torch.device) -> tuple[int | None, int]:
    """Bytes in use at the worst moment of a run beyond those in use before it (None where there is
    no way to tell), and the bytes it keeps for the edit.

    CUDA: what torch has allocated. CPU, on Linux: the resident set, after free memory was given
    back to the system and the kernel's mark of the peak reset. From then on malloc takes tensors of
    64 KiB or more from the system, but where the heap has a hole, and gives them back at once, so
    that a run depends little on those before it; this costs time: first run what is to be timed.
    """
    reset = Path("/proc/self/clear_refs")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        kept = run()[1]
        return torch.cuda.max_memory_allocated(device) - before, kept
    if device.type != "cpu" or not os.access(reset, os.W_OK):
        return None, run()[1]
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
        libc.malloc_trim(0)
    reset.write_text("5")
    before = _resident("VmRSS")
    kept = run()[1]
    return max(_resident("VmHWM") - before, 0), kept


def _resident(line: str) -> int:
    return 1024 * int(re.search(rf"^{line}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[1])


class Row(NamedTuple):
    """The figures of one case; seconds is the median of the rounds, ratio that of the seconds for
    one picture to the first row's."""

    table: str
    way: str
    steps: int
    skip: int
    cfg_source: float
    cfg: float
    chunk: int | None
    batch: int
    latent: str
    calls: int
    samples: int
    seconds: float
    ratio: float
    model_share: float
    peak_mb: float | None
    kept_mb: float


def measure(model: Pipeline, cases_of: dict[str, list[Case]], repeat: int, bar) -> list[Row]:
    """``repeat`` interleaved rounds of each table on the clock, then all cases once more for their
    memory."""
    figures = {table: _time(model, cases, repeat, bar) for table, cases in cases_of.items()}
    rows = []
    for table, cases in cases_of.items():
        for case, (calls, samples, seconds, share) in zip(cases, figures[table]):
            bar.set_description(f"{case.way}, memory")
            peak, kept = (None, 0) if math.isnan(seconds) else peak_memory(case.run, model.device)
            bar.update()
            batch, _, height, width = case.x0.shape
            ratio = (seconds / batch) / (figures[table][0][2] / len(cases[0].x0))
            memory = None if peak is None else peak / 1e6, kept / 1e6
            rows.append(
                Row(
                    table,
                    case.way,
                    *case.preset,
                    case.chunk,
                    batch,
                    f"{height}x{width}",
                    calls,
                    samples,
                    seconds,
                    ratio,
                    share,
                    *memory,
                )
            )
    return rows


def _time(model: Pipeline, cases: list[Case], repeat: int, bar) -> list[tuple[int, int, float, float]]:
    """(calls, samples, seconds, share of the model) of each case."""
    seconds, shares, sizes = ([[] for _ in cases] for _ in range(3))
    for _ in range(repeat):
        for i, case in enumerate(cases):
            bar.set_description(case.way)
            with Meter(model.pipe.unet) as meter:
                begin = clock(model.device)
                try:
                    case.run()
                    seconds[i].append(clock(model.device) - begin)
                except RuntimeError as error:
                    if not ran_out_of_memory(error):
                        raise
                    seconds[i].append(math.nan)
            shares[i].append(math.nan if math.isnan(seconds[i][-1]) else meter.seconds() / seconds[i][-1])
            sizes[i] = meter.sizes
            bar.update()
    return [(len(n), sum(n), statistics.median(s), statistics.median(m)) for n, s, m in zip(sizes, seconds, shares)]


COLUMNS: dict[str, Callable[[Row], str]] = {
    "": lambda row: row.way,
    "steps / skip": lambda row: f"{row.steps} / {row.skip}",
    "cfg source / target": lambda row: f"{row.cfg_source:g} / {row.cfg:g}",
    "chunk": lambda row: str(row.chunk or "-"),
    "batch": lambda row: str(row.batch),
    "latent": lambda row: row.latent,
    "calls": lambda row: str(row.calls),
    "samples": lambda row: str(row.samples),
    "seconds": lambda row: "out of memory" if math.isnan(row.seconds) else f"{row.seconds:.3f}",
    "ratio": lambda row: f"{row.ratio:.3f}",
    "model": lambda row: f"{100 * row.model_share:.1f} %",
    "peak, MB": lambda row: "-" if row.peak_mb is None else f"{row.peak_mb:.1f}",
    "kept, MB": lambda row: f"{row.kept_mb:.2f}",
}


def markdown(rows: list[Row]) -> str:
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *([cell(row) for cell in COLUMNS.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def header(model: Pipeline, name: str, repeat: int) -> str:
    """What was measured, on what, and how the columns are to be read."""
    unet = model.pipe.unet
    machine = (
        torch.cuda.get_device_name(unet.device)
        if unet.device.type == "cuda"
        else f"{unet.device.type}, torch on {torch.get_num_threads()} threads"
    )
    dtype, parameters = str(unet.dtype).removeprefix("torch."), sum(p.numel() for p in unet.parameters()) / 1e6
    return f"""# Time and memory of an edit

{machine}; torch {torch.__version__}, {dtype}; {name}, a UNet of {parameters:.0f} M parameters.

Each figure is from one run on one machine: read the ratios, not the seconds. An edit is an inversion and one replay, text encoder and autoencoder left out.

- calls, samples: calls of the UNet, and the batch items in them.
- seconds: the median of the rounds ({repeat}), which go through the table row by row.
- ratio: the seconds for one picture, to those of the table's first row. model: the share of the seconds within the UNet.
- peak: memory at the worst moment of one more run, beyond what was in use before it (CUDA: what torch allocated; CPU: resident set, to about 10 MB).
- kept: the noise maps, or what (a) keeps in their place.
- (a) inverts the whole path, one timestep and one guidance branch a call; (e) draws a new picture, both branches in one call."""


def run(args: argparse.Namespace) -> None:
    """Time an edit side by side: as the authors' code orders the work, as this package does, and
    plain sampling; then by chunk, latent size and batch."""
    from ...demo.model import FOLDER

    check_device(args.device)
    repeat = 1 if args.quick else args.repeat
    if repeat < 1:
        raise ValueError(f"--repeat must be 1 or more rounds; got {repeat}.")
    args.out.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, args.dtype)
    model = (
        random_pipeline(RANDOM[args.random], args.device, dtype)
        if args.random
        else Pipeline.load(FOLDER, args.device, dtype)
    )
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # the one that events and synchronise mean
    cases = tables(model, QUICK if args.quick else PRESETS)
    cases["way"][-1].run()  # what the first calls of all prepare is no way's own
    with tqdm(total=(1 + repeat) * sum(map(len, cases.values())), unit="run") as bar:
        rows = measure(model, cases, repeat, bar)
    parts = [header(model, f"{args.random} with random weights" if args.random else "the demo model", repeat)]
    parts += [f"## By {table}\n\n{markdown([row for row in rows if row.table == table])}" for table in cases]
    text = "\n\n".join(parts)
    print(text)
    (args.out / "speed.md").write_text(text + "\n", encoding="utf-8")
    with open(args.out / "speed.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([Row._fields, *rows])
    print(f"\nThe result lies in {args.out.resolve()}")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--random",
        choices=list(RANDOM),
        help="instead of the demo model the UNet of this one at its real size, with random weights: for a GPU",
    )
    add(
        "--out",
        type=Path,
        default=Path("out/speed"),
        help="the folder for speed.md and speed.csv (default: %(default)s)",
    )
    add("--repeat", type=int, default=3, help="rounds whose median counts (default: %(default)s)")
    add("--quick", action="store_true", help="few steps and one round, in well under a minute with the demo model")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)")
    add(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        default="float32",
        help="precision of the model (default: %(default)s)",
    )
