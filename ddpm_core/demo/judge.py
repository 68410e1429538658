"""How good is the demo model: ``python -m ddpm_core.demo.judge``.

Two reports on scenes that training never drew: the autoencoder's PSNR and the deviation of its
latent channels, and the share of generated pictures that show what their caption says. The
second needs ``judge``, which names the drawn scene nearest to a picture.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from .model import FOLDER
from .scenes import (
    BACKGROUNDS,
    COLORS,
    FILLS,
    SHADOW,
    SHAPES,
    SIZE,
    Scene,
    caption,
    coverage,
    layers,
    paint_and_rest,
    random_scenes,
    render,
)

ATTRIBUTES = ("shape", "fill", "color", "background")
HELD_OUT = 90210  # seed of the scenes reported on; no training used it
BATCH = 16

_GRID = 48  # pixels a side at which pictures are compared
_PEBBLE = 5  # pixels of that grid: more than a pebble is wide
_ANGLES = torch.linspace(-0.45, 0.45, 7).tolist()
_STEPS = (0.004, 0.004, 0.004, 0.03)  # x, y, radius, angle: steps of the finite differences
_REACH = 6.0  # the farthest one round of refinement goes, in such steps
_SCHEDULE = ((10, 2), (3, 3), (1, 3))  # how many candidates are kept after how many rounds
_LIMITS = torch.tensor([(0.0, 0.0, 0.10, -0.65), (1.0, 1.0, 0.45, 0.65)])


@dataclass(frozen=True)
class _View:
    """The n pixels that decide about the shape of one picture."""

    points: Tensor  # (n, 2), in units of the picture's side
    pixels: Tensor  # (n, 3), the picture
    ground: Tensor  # (n, 3), what the shape lies on: background and dots


def judge(pictures: Tensor, near: Sequence[Scene] | None = None) -> list[Scene]:
    """The drawn scene nearest to each picture in squared error, among all shapes, fills, colors
    and backgrounds.

    pictures: (B, 3, 192, 192) in [0, 1]. Position, radius, angle and shading are fitted, and
    whether the scene is lit or flat; pebbles and an even color cast of the background are looked
    past, and no dots are returned. Something
    is named even where nothing is drawn. With ``near``, one scene for each picture, the fit of
    position, radius and angle only starts from that scene's (an edited picture is judged where
    its source was drawn) and goes at most 0.2 away.
    """
    if pictures.ndim != 4 or pictures.shape[1:] != (3, SIZE, SIZE):
        raise ValueError(f"judge needs pictures of shape (B, 3, {SIZE}, {SIZE}); got {tuple(pictures.shape)}.")
    if near is not None and len(near) != len(pictures):
        raise ValueError(f"judge needs one near scene for each of {len(pictures)} pictures; got {len(near)}.")
    if not pictures.isfinite().all():
        raise ValueError("judge needs pictures in [0, 1]; got some that are not finite.")
    small = F.avg_pool2d(pictures.detach().float().cpu(), SIZE // _GRID)
    starts = [None] * len(pictures) if near is None else near
    return [_judge_one(picture, start) for picture, start in zip(small.permute(0, 2, 3, 1), starts)]


def agreement(scenes: Sequence[Scene], judged: Sequence[Scene]) -> dict[str, float]:
    """Share of scenes whose shape, fill, color and background were judged right, each alone and
    ``all`` together."""
    right = torch.tensor(
        [[getattr(s, name) == getattr(j, name) for name in ATTRIBUTES] for s, j in zip(scenes, judged)]
    ).double()
    return dict(zip((*ATTRIBUTES, "all"), [*right.mean(0).tolist(), right.amin(1).mean().item()]))


@torch.no_grad()
def autoencoder_psnr(vae, pictures: Tensor) -> tuple[float, float]:
    """PSNR in dB of encoding to the latents' mode and decoding; pictures (B, 3, H, W) in [0, 1].

    Returns the mean over pictures of the PSNR, and the PSNR of the mean squared error of all
    pictures.
    """
    errors = []
    for batch in pictures.split(BATCH):
        decoded = vae.decode(vae.encode(batch * 2 - 1).latent_dist.mode()).sample
        errors.append(((decoded / 2 + 0.5).clamp(0, 1) - batch).square().mean((1, 2, 3)))
    error = torch.cat(errors).double()
    return -10 * error.log10().mean().item(), -10 * error.mean().log10().item()


@torch.no_grad()
def latent_deviations(vae, pictures: Tensor) -> list[float]:
    """Standard deviation of each latent channel over pictures (B, 3, H, W) in [0, 1]: a channel
    that carries nothing has next to none."""
    latents = torch.cat([vae.encode(batch * 2 - 1).latent_dist.mean for batch in pictures.split(BATCH)])
    return latents.std((0, 2, 3)).tolist()


def generate(pipe, captions: Sequence[str], guidance: float, steps: int, seed: int) -> Tensor:
    """Pictures (B, 3, 192, 192) in [0, 1] from a diffusers pipeline; batch number i draws its
    noise from ``seed + i``."""
    pictures = []
    for i in tqdm(range(0, len(captions), BATCH), desc="generate", unit="batch"):
        noise = torch.Generator().manual_seed(seed + i // BATCH)
        words = list(captions[i : i + BATCH])
        pictures.append(
            pipe(words, guidance_scale=guidance, num_inference_steps=steps, generator=noise, output_type="pt").images
        )
    return torch.cat(pictures)


@torch.no_grad()
def _judge_one(picture: Tensor, near: Scene | None) -> Scene:
    """picture: (H, H, 3)."""
    points = _centers(_GRID)
    name, slope, cast = _fit_background(picture, points)
    lit = _lit(torch.tensor(BACKGROUNDS[name]), slope, points).clamp(0, 1) + cast
    ground, mask = _find_shape(picture, lit)
    blank = Scene("circle", "plain", "red", name, shade_angle=math.atan2(slope[1], slope[0]), shade=slope.norm().item())
    close = F.max_pool2d(mask.float()[None], 9, stride=1, padding=4)[0] > 0
    view = _View(points[close], picture[close], ground[close])
    if near is None:
        starts = _place(blank, points[mask])
    else:
        starts = [replace(blank, shape=s, x=near.x, y=near.y, radius=near.radius, angle=near.angle) for s in SHAPES]
    variants = [replace(s, fill=fill, relief=relief) for relief in (1.0, 0.0) for fill in FILLS for s in starts]
    scenes, residual = _recolor(variants, view)
    ranked = [scenes[i] for i in residual.square().sum(1).argsort(descending=True).tolist()]
    scenes = list({(s.shape, s.fill): s for s in ranked}.values())  # the best start of each shape and fill
    for keep, rounds in _SCHEDULE:
        scenes = _refine(scenes, view, rounds)[:keep]
    return scenes[0]


def _centers(size: int) -> Tensor:
    """Centers (x, y) of a picture's pixels, (size, size, 2), in units of its side."""
    centers = (torch.arange(size) + 0.5) / size
    return torch.stack(torch.meshgrid(centers, centers, indexing="xy"), dim=-1)


def _lit(color: Tensor, slope: Tensor, points: Tensor) -> Tensor:
    """A background (..., 3) under linear light with slope (..., 2), before clamping, at points
    (H, W, 2): (..., H, W, 3)."""
    light = 1 + torch.einsum("...k,hwk->...hw", slope, 2 * points - 1)
    return light[..., None] * color[..., None, None, :]


def _fit_background(picture: Tensor, points: Tensor) -> tuple[str, Tensor, Tensor]:
    """Name, light slope (2,) and color cast (3,) of the background that fits the outer eighth of
    the picture (H, H, 3) best.

    Robust least squares (Geman-McClure weights, which let go of dots and of a shape that reaches
    into the frame). The cast is what the named color leaves over; a name is the better the less
    it leaves.
    """
    color = torch.tensor(list(BACKGROUNDS.values()))  # (8, 3)
    frame = ((points - 0.5).abs().amax(-1) > 0.375).float()
    along = 2 * points - 1
    slope, cast = torch.zeros(len(color), 2), torch.zeros(len(color), 3)
    for _ in range(8):
        lit = _lit(color, slope, points)
        miss = picture - lit.clamp(0, 1) - cast[:, None, None]  # (8, H, H, 3)
        squared = miss.square().sum(-1) / 0.15**2
        weight = frame / (1 + squared).square()
        tilt = color[:, None, None] * (lit < 1)  # d lit / d light
        normal = torch.einsum("chw,hwi,hwj->cij", weight * tilt.square().sum(-1), along, along) + torch.eye(2)
        slope = slope + torch.linalg.solve(normal, torch.einsum("chw,hwi->ci", weight * (tilt * miss).sum(-1), along))
        cast = cast + torch.einsum("chw,chwi->ci", weight, miss) / weight.sum((1, 2))[:, None]
    loss = (frame * squared / (1 + squared)).sum((1, 2)) / frame.sum() + cast.square().sum(-1) / 0.15**2
    best = int(loss.argmin())
    return list(BACKGROUNDS)[best], slope[best], cast[best]


def _find_shape(picture: Tensor, lit: Tensor) -> tuple[Tensor, Tensor]:
    """The ground with the pebbles of the picture on it (H, H, 3), and a mask (H, H) of what is
    neither ground nor shadow nor as small as a pebble."""
    darkest = (1 - SHADOW) * (1 - SHADOW / 2)
    dark = ((picture * lit).sum(-1, keepdim=True) / lit.square().sum(-1, keepdim=True)).clamp(darkest, 1)
    strange = ((picture - dark * lit).norm(dim=-1) > 0.1).float()[None]
    core = -F.max_pool2d(-strange, _PEBBLE, stride=1, padding=_PEBBLE // 2)  # erosion: a pebble has none
    near = F.max_pool2d(core, 2 * _PEBBLE + 1, stride=1, padding=_PEBBLE)
    mask = (strange * near)[0] > 0
    mask = mask if mask.any() else strange[0] > 0
    is_pebble = (strange[0] > 0) & ~mask
    return torch.where(is_pebble[..., None], picture, lit), mask if mask.any() else ~mask


@lru_cache
def _moments(shape: str) -> tuple[float, float, float]:
    """Area and centroid (x, y) of a shape of radius 1 at the origin."""
    cover = coverage([Scene(shape, "plain", "red", "blue")])[0, 0]
    centroid = (cover[..., None] * (_centers(SIZE) - 0.5)).sum((0, 1)) / cover.sum() / 0.25
    return cover.mean().item() / 0.25**2, *centroid.tolist()


def _place(blank: Scene, inside: Tensor) -> list[Scene]:
    """Every shape at every start angle, with the area and centroid of the points (n, 2) of a
    mask."""
    cx, cy = inside.mean(0).tolist()
    scenes = []
    for shape in SHAPES:
        area, ox, oy = _moments(shape)
        radius = min(max(math.sqrt(len(inside) / _GRID**2 / area), 0.12), 0.40)
        for angle in _ANGLES:
            cos, sin = math.cos(angle), math.sin(angle)
            x, y = cx - radius * (cos * ox - sin * oy), cy - radius * (sin * ox + cos * oy)
            scenes.append(replace(blank, shape=shape, x=x, y=y, radius=radius, angle=angle))
    return scenes


def _parts(scenes: Sequence[Scene], view: _View) -> tuple[Tensor, Tensor]:
    """A view's pixels are ``color * paint + rest`` if the scenes are drawn there; paint (K, n,
    1) and picture - rest (K, n, 3)."""
    points = view.points.expand(len(scenes), 1, *view.points.shape)
    paint, rest = paint_and_rest(view.ground, layers(scenes, points, 1 / _GRID))
    return paint[:, 0], view.pixels - rest[:, 0]


def _residual(scenes: Sequence[Scene], view: _View) -> Tensor:
    """Picture minus drawing, (K, 3 n)."""
    paint, target = _parts(scenes, view)
    return (target - paint * torch.tensor([COLORS[s.color] for s in scenes])[:, None]).flatten(1)


def _recolor(scenes: Sequence[Scene], view: _View) -> tuple[list[Scene], Tensor]:
    """The scenes, each with the color that fits it best, and their residuals (K, 3 n)."""
    paint, target = _parts(scenes, view)
    color = torch.tensor(list(COLORS.values()))
    gain = 2 * (paint * target).sum(1) @ color.T - paint.square().sum((1, 2))[:, None] * color.square().sum(-1)
    best = gain.argmax(1)
    return [replace(s, color=list(COLORS)[i]) for s, i in zip(scenes, best.tolist())], (
        target - paint * color[best][:, None]
    ).flatten(1)


def _refine(scenes: Sequence[Scene], view: _View, rounds: int) -> list[Scene]:
    """Levenberg-Marquardt on x, y, radius and angle; returns the scenes, the best first."""
    steps = torch.tensor(_STEPS)
    scenes, residual = _recolor(scenes, view)
    damping = torch.full((len(scenes), 1), 0.01)
    for _ in range(rounds):
        geometry = torch.tensor([(s.x, s.y, s.radius, s.angle) for s in scenes])
        nudged = (geometry + torch.diag(steps)[:, None]).flatten(0, 1)  # (4 K, 4)
        jacobian = (
            _residual(_moved(scenes * 4, nudged), view).unflatten(0, (4, -1)).movedim(0, -1) - residual[..., None]
        )  # (K, 3 n, 4), per step
        normal = jacobian.mT @ jacobian
        diagonal = normal.diagonal(dim1=1, dim2=2)
        shift = -torch.linalg.solve(
            normal + torch.diag_embed(damping * diagonal + 1e-3), jacobian.mT @ residual[..., None]
        )[..., 0]
        goal = (geometry + shift.clamp(-_REACH, _REACH) * steps).clamp(*_LIMITS)
        tried, missed = _recolor(_moved(scenes, goal), view)
        better = (missed.square().sum(1) < residual.square().sum(1))[:, None]
        scenes = [new if ok else old for new, old, ok in zip(tried, scenes, better)]
        residual = torch.where(better, missed, residual)
        damping = damping * torch.where(better, 0.3, 10.0)
    return [scenes[i] for i in residual.square().sum(1).argsort().tolist()]


def _moved(scenes: Sequence[Scene], geometry: Tensor) -> list[Scene]:
    """The scenes with x, y, radius and angle from geometry (K, 4)."""
    return [replace(s, x=x, y=y, radius=r, angle=a) for s, (x, y, r, a) in zip(scenes, geometry.tolist())]


def report(pipe, count: int, guidance: float, steps: int, seed: int) -> dict:
    """Both reports on held-out scenes, ``count`` of them generated and judged; shares are in [0,
    1], PSNR in dB."""
    pictures = torch.cat([render([scene]) for scene in random_scenes(64, HELD_OUT)])
    mean, pooled = autoencoder_psnr(pipe.vae, pictures)
    deviations = latent_deviations(pipe.vae, pictures)
    scenes = random_scenes(count, HELD_OUT)
    pictures = generate(pipe, [caption(scene) for scene in scenes], guidance, steps, seed)
    judged = [scene for batch in tqdm(pictures.split(BATCH), desc="judge", unit="batch") for scene in judge(batch)]
    return {
        "autoencoder": {"pictures": 64, "psnr_mean": mean, "psnr_pooled": pooled, "deviations": deviations},
        "generation": {
            "pictures": count,
            "guidance": guidance,
            "steps": steps,
            "seed": seed,
            "share": agreement(scenes, judged),
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", type=Path, default=FOLDER, help="folder of the pipeline")
    parser.add_argument("--pictures", type=int, default=256, help="how many to generate")
    parser.add_argument("--guidance", type=float, default=5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the noise; the scenes are always the same")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args(arguments)
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(args.model, safety_checker=None, requires_safety_checker=False).to(
        torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    result = report(pipe, args.pictures, args.guidance, args.steps, args.seed)
    coder, generated = result["autoencoder"], result["generation"]
    quality = f"PSNR {coder['psnr_mean']:.2f} dB (mean), {coder['psnr_pooled']:.2f} dB (pooled)"
    print(f"autoencoder, {coder['pictures']} pictures: {quality}")
    print("  deviation of the latent channels", *(f"{value:.2f}" for value in coder["deviations"]))
    settings = f"guidance {args.guidance:g}, {args.steps} steps"
    print(f"{generated['pictures']} generated pictures, {settings}; share with the caption's")
    for name, share in generated["share"].items():
        print(f"  {name:<10} {share:7.1%}")
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
