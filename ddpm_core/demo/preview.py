"""A tiny decoder of the demo model's latents, for live previews in right colours: a linear map from
latent channels to RGB, as in ComfyUI's quick previews, gets them wrong.

    python -m ddpm_core.demo.preview    # fit it to the autoencoder in weights, in minutes on one core
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .model import FOLDER, VAE
from .scenes import random_scenes, render

FILE = FOLDER / "preview.safetensors"
ENLARGED = 4  # pixels of the preview a latent cell
WIDTH = 48


def decoder() -> nn.Sequential:
    """Latents (B, 4, h, w), scaled as the denoiser sees them, to RGB (B, 3, 4 h, 4 w) in about
    [-1, 1]; unfitted."""
    return nn.Sequential(
        nn.Conv2d(VAE["latent_channels"], WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, 3 * ENLARGED**2, 1),
        nn.PixelShuffle(ENLARGED),
    )


@cache
def load(path: Path = FILE) -> nn.Sequential:
    fitted = decoder()
    fitted.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return fitted.train(False).requires_grad_(False)


def fit(latents: Tensor, pictures: Tensor, steps: int, batch: int = 16, seed: int = 0) -> nn.Sequential:
    """The decoder that comes nearest to pictures (N, 3, 4 h, 4 w) in [-1, 1] from their latents
    (N, 4, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = decoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(latents), (batch,), generator=generator)
        error = (model(latents[chosen]) - pictures[chosen]).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
    return model.train(False)


@torch.no_grad()
def _examples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Latents of random scenes, and the scenes in the preview's size, in [-1, 1]."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(FOLDER / "vae", low_cpu_mem_usage=False).float().train(False)
    latents, pictures = [], []
    for scene in random_scenes(count, seed):
        picture = 2 * render([scene]) - 1
        latents.append(vae.encode(picture).latent_dist.mean * vae.config.scaling_factor)
        pictures.append(nn.functional.avg_pool2d(picture, 8 // ENLARGED))
    return torch.cat(latents), torch.cat(pictures)


def main() -> None:
    model = fit(*_examples(768, seed=1), steps=1500)
    latents, pictures = _examples(64, seed=2)
    with torch.no_grad():
        error = (model(latents) - pictures).abs().mean() * 255 / 2
    save_file({name: value.half() for name, value in model.state_dict().items()}, FILE)
    print(f"{FILE.name}: {FILE.stat().st_size / 1000:.0f} kB; mean error on new scenes {error:.1f} of 255")


if __name__ == "__main__":
    main()
