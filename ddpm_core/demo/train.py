"""Train the demo model from drawn scenes: ``python -m ddpm_core.demo.train``.

The times are minutes of wall clock on whatever machine it runs on; the learning rate falls to zero
over each stage. Any stage can be run again alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tqdm import trange

from .model import CONTEXT, build_pipeline
from .scenes import SIZE, Scene, caption, random_scene, render

# Noise that whole channels share: without it a picture's mean colour shows through the strongest
# noise, and words for it are never learned.
OFFSET = 0.2


class Clock:
    """Progress of a stage by wall clock, and the learning rate that goes with it."""

    def __init__(self, minutes: float, rate: float, warmup: float = 0.03):
        self.start, self.seconds, self.rate, self.warmup = time.monotonic(), 60 * minutes, rate, warmup

    @property
    def progress(self) -> float:
        return (time.monotonic() - self.start) / self.seconds

    def learning_rate(self) -> float:
        p = min(self.progress, 1.0)
        return self.rate * min(1.0, p / self.warmup) * 0.5 * (1 + math.cos(math.pi * p))


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, step: int, decay: float) -> None:
    decay = min(decay, (1 + step) / (10 + step))
    for a, p in zip(average.parameters(), model.parameters()):
        a.lerp_(p, 1 - decay)


def optimize(optimizer, clock: Clock, loss: torch.Tensor, parameters) -> None:
    for group in optimizer.param_groups:
        group["lr"] = clock.learning_rate()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def crop_batch(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """``count`` square cut-outs of ``side`` pixels, most of them near the shape's outline."""
    scenes = [random_scene(generator) for _ in range(count)]
    span = side / SIZE
    corners = []
    for scene, (u, v, w) in zip(scenes, torch.rand(count, 3, generator=generator).tolist()):
        near = w < 0.75
        x = scene.x + (2 * u - 1) * scene.radius if near else u
        y = scene.y + (2 * v - 1) * scene.radius if near else v
        corners.append(tuple(min(max(c - span / 2, 0.0), 1 - span) for c in (x, y)))
    return render(scenes, side, corners, span)


def train_autoencoder(pipe, minutes: float, kl_weight: float, device: str, generator: torch.Generator) -> None:
    """Mean squared and absolute error with a light KL term; 64-pixel crops first, whole pictures
    for the last 30 %."""
    vae = pipe.vae.to(device).train()
    average = copy.deepcopy(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    clock, step, seen = Clock(minutes, 1e-3), 0, 0.0
    while clock.progress < 1:
        count, side = (16, 64) if clock.progress < 0.7 else (4, SIZE)
        pictures = crop_batch(count, side, generator).to(device) * 2 - 1
        with torch.autocast(device, torch.bfloat16):
            posterior = vae.encode(pictures).latent_dist
            recon = vae.decode(posterior.sample()).sample.float()
        squared = F.mse_loss(recon, pictures)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        optimize(
            optimizer, clock, squared + 0.1 * F.l1_loss(recon, pictures) + kl_weight * kl.float(), vae.parameters()
        )
        update_average(average, vae, step, 0.998)
        step += 1
        seen += (squared.item() - seen) * max(0.02, 1 / step)
        if step % 100 == 0:
            quality = f"crop PSNR {10 * math.log10(4 / seen):.2f} dB  kl {kl.item():.2f}"
            print(f"autoencoder {clock.progress:6.1%}  step {step}  {quality}", flush=True)
    vae.load_state_dict(average.state_dict())
    vae.eval()


@torch.no_grad()
def encode(vae, pictures: torch.Tensor, device: str) -> torch.Tensor:
    with torch.autocast(device, torch.bfloat16):
        return vae.encode(pictures.to(device) * 2 - 1).latent_dist.mean.float()


def random_caption(scene, generator: torch.Generator) -> str:
    """The caption with each attribute left out once in ten times, and nothing at all once in ten
    times."""
    drop = torch.rand(4, generator=generator) < 0.1
    return "" if drop[0] else caption(scene, fill=not drop[1], color=not drop[2], background=not drop[3])


def encoded_scenes(
    pipe, count: int, cache: Path | None, device: str, generator: torch.Generator
) -> tuple[list[Scene], torch.Tensor]:
    """``count`` random scenes and their scaled latents (count, 4, h, w), read from or written to
    ``cache``."""
    scenes = [random_scene(generator) for _ in range(count)]
    if cache is not None and cache.exists():
        return scenes, load_file(cache)["latents"]
    parts = [
        encode(pipe.vae, render(scenes[i : i + 32]), device).cpu() for i in trange(0, count, 32, desc="encoding scenes")
    ]
    latents = (torch.cat(parts) * pipe.vae.config.scaling_factor).contiguous()
    if cache is not None:
        save_file({"latents": latents}, cache)
    return scenes, latents


def train_denoiser(
    pipe,
    scenes: list[Scene],
    latents: torch.Tensor,
    minutes: float,
    rate: float,
    device: str,
    generator: torch.Generator,
    save,
) -> None:
    """Noise prediction with min-SNR weights (Hang et al. 2303.09556), UNet and text encoder
    together."""
    unet, text = pipe.unet.to(device).train(), pipe.text_encoder.to(device).train()
    model = torch.nn.ModuleList([unet, text])
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    abar = pipe.scheduler.alphas_cumprod.to(device)
    clock, step, seen, saved = Clock(minutes, rate), 0, 0.0, 0.0
    while clock.progress < 1:
        rows = torch.randint(len(scenes), (32,), generator=generator)
        x = latents[rows].to(device)
        words = [random_caption(scenes[i], generator) for i in rows.tolist()]
        tokens = pipe.tokenizer(
            words, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
        ).input_ids
        t = torch.randint(1000, (32,), generator=generator).to(device)
        noise = torch.randn(x.shape, generator=generator) + OFFSET * torch.randn(
            *x.shape[:2], 1, 1, generator=generator
        )
        noise = noise.to(device)
        a = abar[t].view(-1, 1, 1, 1)
        with torch.autocast(device, torch.bfloat16):
            context = text(tokens.to(device)).last_hidden_state
            predicted = unet(a.sqrt() * x + (1 - a).sqrt() * noise, t, context).sample.float()
        snr = (a / (1 - a)).flatten()
        error = (predicted - noise).square().mean((1, 2, 3))
        weight = (
            snr.clamp(max=5) / snr * snr.clamp(max=1) ** -0.3
        )  # the second factor: words bind where the noise is high
        optimize(optimizer, clock, (weight * error).mean(), model.parameters())
        update_average(average, model, step, 0.9985)
        step += 1
        seen += (error.mean().item() - seen) * max(0.01, 1 / step)
        if step % 100 == 0:
            print(f"denoiser {clock.progress:6.1%}  step {step}  error {seen:.4f}", flush=True)
        if clock.progress > saved + 0.1:
            saved = clock.progress
            save(average)
    model.load_state_dict(average.state_dict())
    save(model)


@torch.no_grad()
def measure_latents(pipe, folder: Path, device: str, generator: torch.Generator) -> None:
    """Set the scale that makes latents of unit deviation; fit latent channels (and 1) to RGB in
    [-1, 1] for quick previews."""
    pictures = render([random_scene(generator) for _ in range(128)])
    latents = encode(pipe.vae, pictures, device).cpu()
    scale = round(1 / latents.std().item(), 4)
    pipe.vae.register_to_config(scaling_factor=scale)
    columns = torch.cat([latents * scale, torch.ones_like(latents[:, :1])], 1).permute(0, 2, 3, 1).reshape(-1, 5)
    colors = F.avg_pool2d(pictures * 2 - 1, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    factors = torch.linalg.lstsq(columns, colors).solution
    (folder / "preview.json").write_text(
        json.dumps({"latent_rgb_factors": factors[:4].tolist(), "latent_rgb_factors_bias": factors[4].tolist()})
    )


def name_as_published(path: Path) -> None:
    """Give a CLIP text encoder's tensors the names that published checkpoints have, which every
    version of transformers and ComfyUI reads."""
    tensors = {
        key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/model"), help="folder of the pipeline")
    parser.add_argument(
        "--autoencoder-minutes", type=float, default=24, help="0 keeps the autoencoder that is in the folder"
    )
    parser.add_argument(
        "--kl-weight", type=float, default=2e-6, help="weight of the autoencoder's KL term, per latent value"
    )
    parser.add_argument("--resume", action="store_true", help="start from what is in the folder")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="the denoiser's greatest learning rate")
    parser.add_argument("--scenes", type=int, default=6144, help="scenes that the denoiser learns from")
    parser.add_argument("--cache", type=Path, help="file for the encoded scenes, written once and read again")
    parser.add_argument("--denoiser-minutes", type=float, default=70, help="0 trains the autoencoder alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)  # the initial weights
    generator = torch.Generator().manual_seed(args.seed)
    pipe = build_pipeline(args.out)

    def save(model=None):
        parts = {"vae": pipe.vae, "unet": pipe.unet, "text_encoder": pipe.text_encoder}
        if model is not None:
            parts["unet"], parts["text_encoder"] = model[0], model[1]
        stored = type(pipe)(
            **{name: copy.deepcopy(part).to("cpu", torch.float16) for name, part in parts.items()},
            tokenizer=pipe.tokenizer,
            scheduler=pipe.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        stored.save_pretrained(args.out)
        name_as_published(args.out / "text_encoder" / "model.safetensors")

    parts = ["vae"] * bool(args.resume or not args.autoencoder_minutes) + ["unet", "text_encoder"] * (
        args.resume and not args.autoencoder_minutes
    )
    for part in parts:
        pipe.register_modules(**{part: type(getattr(pipe, part)).from_pretrained(args.out / part).float()})
    if args.autoencoder_minutes:
        train_autoencoder(pipe, args.autoencoder_minutes, args.kl_weight, args.device, generator)
        measure_latents(pipe, args.out, args.device, generator)
        save()
    if args.denoiser_minutes:
        pipe.vae.to(args.device).eval()
        scenes, latents = encoded_scenes(
            pipe, args.scenes, args.cache, args.device, torch.Generator().manual_seed(args.seed + 1)
        )
        train_denoiser(pipe, scenes, latents, args.denoiser_minutes, args.learning_rate, args.device, generator, save)
    print("stored in", args.out)


if __name__ == "__main__":
    main()
