"""Train the demo model from drawn scenes: ``python -m ddpm_core.demo.train STAGE``.

The stages, each for some minutes of wall clock and each to be gone on with by ``--resume`` (what is
in the folder is the start): ``autoencoder``; ``measure`` (the latents' scale, once the encoder
stays as it is); then ``decoder``, ``encode`` and ``denoiser``, which may run at the same time, a
process each: the second fills a folder with encoded scenes, from which the third learns. ``finish``
writes the whole pipeline in half precision. The learning rate falls to zero over the last part of
a stage.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from .model import CONTEXT, build_pipeline
from .scenes import SIZE, Scene, caption, random_scene, random_scenes, render

# Noise that whole channels share: without it a picture's mean colour shows through the strongest
# noise, and words for it are never learned.
OFFSET = 0.2
FLAT = 0.25  # share of the scenes that are flat paper on an even ground, as a painting program draws
COOLDOWN = 0.4  # share of a stage in which the learning rate falls
KL_WEIGHT = 2e-6  # of the autoencoder's KL term, per latent value
ENCODED = 64  # scenes a file of the folder of encoded scenes
STAGES = ("autoencoder", "measure", "decoder", "encode", "denoiser", "finish")


class Stage:
    """A stage's steps by wall clock: learning rate, running average of the weights, what it prints
    and when it saves. Muon (kellerjordan.github.io/posts/muon) learns the large matrices, AdamW
    the rest."""

    def __init__(self, modules: torch.nn.Module, minutes: float, rate: float, decay: float, save):
        self.modules, self.average, self.decay, self.save = modules, copy.deepcopy(modules), decay, save
        self.parameters = [p for p in modules.parameters() if p.requires_grad]
        tables = {id(m.weight) for m in modules.modules() if isinstance(m, torch.nn.Embedding)}
        large = [p for p in self.parameters if p.ndim > 1 and min(len(p), p[0].numel()) >= 16 and id(p) not in tables]
        # Muon takes matrices only: a convolution's kernel is seen as one, (out, in * height * width).
        self.matrices = [(torch.nn.Parameter(p.detach().flatten(1)), p) for p in large]
        known = {id(p) for p in large}
        rest = [p for p in self.parameters if id(p) not in known]
        self.optimizers = [torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.01)]
        matrices = [matrix for matrix, _ in self.matrices]
        self.optimizers.append(torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
        self.start, self.seconds, self.rate = time.monotonic(), 60 * minutes, rate
        self.step, self.seen, self.said = 0, 0.0, 0.0

    @property
    def progress(self) -> float:
        return (time.monotonic() - self.start) / self.seconds

    def __iter__(self) -> Iterator[float]:
        """The progress in [0, 1) before each step; at the end the average is what the modules are."""
        while (progress := self.progress) < 1:
            yield progress
        self.modules.load_state_dict(self.average.state_dict())
        self.save(self.modules)

    def learn(self, loss: torch.Tensor, shown: float) -> None:
        left = min(1.0, (1 - min(self.progress, 1.0)) / COOLDOWN)
        for p in self.parameters:
            p.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for matrix, p in self.matrices:
            matrix.grad = p.grad.flatten(1)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate * min(1.0, (self.step + 1) / 100) * left
            optimizer.step()
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for a, p in zip(self.average.parameters(), self.modules.parameters()):
                a.lerp_(p, 1 - decay)
        self.step += 1
        self.seen += (shown - self.seen) * max(0.01, 1 / self.step)
        if time.monotonic() - self.said > 60:
            self.said = time.monotonic()
            print(f"{self.progress:6.1%}  step {self.step}  error {self.seen:.5f}", flush=True)
            if self.step > 100:
                self.save(self.average)


def training_scene(generator: torch.Generator) -> Scene:
    """A random scene, now and then flat."""
    scene = random_scene(generator)
    flat = torch.rand((), generator=generator) < FLAT
    return replace(scene, relief=0.0, shade=0.0, dots=()) if flat else scene


def vary_colors(pictures: torch.Tensor, scenes: list[Scene], generator: torch.Generator) -> torch.Tensor:
    """Flat scenes get other tones of their colours: what a person calls red is not one red."""
    gamma = torch.exp(0.2 * torch.randn(len(scenes), 3, 1, 1, generator=generator))
    flat = torch.tensor([scene.relief == 0 for scene in scenes])[:, None, None, None]
    return torch.where(flat, pictures**gamma, pictures)


def crop_batch(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """``count`` square cut-outs of ``side`` pixels, most of them near the shape's outline."""
    scenes = [training_scene(generator) for _ in range(count)]
    span = side / SIZE
    corners = []
    for scene, (u, v, w) in zip(scenes, torch.rand(count, 3, generator=generator).tolist()):
        near = w < 0.75
        x = scene.x + (2 * u - 1) * scene.radius if near else u
        y = scene.y + (2 * v - 1) * scene.radius if near else v
        corners.append(tuple(min(max(c - span / 2, 0.0), 1 - span) for c in (x, y)))
    return vary_colors(render(scenes, side, corners, span), scenes, generator)


def train_autoencoder(vae, minutes: float, rate: float, whole: float, generator: torch.Generator, save) -> None:
    """Mean squared and absolute error with a light KL term, on cut-outs, and on whole pictures for
    the last share ``whole``; the encoder stays as it is where its parameters need no gradient."""
    device = vae.device
    stage = Stage(vae.train(), minutes, rate, 0.998, save)
    for progress in stage:
        count, side = (12, 64) if progress < 1 - whole else (2, SIZE)
        pictures = crop_batch(count, side, generator).to(device) * 2 - 1
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(pictures).latent_dist
            recon = vae.decode(posterior.sample()).sample.float()
        squared = F.mse_loss(recon, pictures)
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        stage.learn(squared + 0.05 * F.l1_loss(recon, pictures) + KL_WEIGHT * kl, squared.item())


@torch.no_grad()
def encode(vae, pictures: torch.Tensor) -> torch.Tensor:
    with torch.autocast(vae.device.type, torch.bfloat16):
        return vae.encode(pictures.to(vae.device) * 2 - 1).latent_dist.mean.float().cpu()


def encode_scenes(vae, folder: Path, minutes: float, seed: int) -> None:
    """Fill ``folder`` with encoded scenes, ``seed.safetensors`` and on; each file's number is the
    seed of its scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        if not (folder / f"{seed}.safetensors").exists():
            scenes, generator = encoded_scenes(seed)
            parts = []
            for i in range(0, len(scenes), 8):
                part = scenes[i : i + 8]
                parts.append(encode(vae, vary_colors(render(part), part, generator)))
            latents = (torch.cat(parts) * vae.config.scaling_factor).contiguous()
            save_file({"latents": latents}, folder / "part")
            (folder / "part").rename(folder / f"{seed}.safetensors")
        seed += 1


def encoded_scenes(seed: int) -> tuple[list[Scene], torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    return [training_scene(generator) for _ in range(ENCODED)], generator


class Encoded:
    """The scenes of a folder and their scaled latents (count, 4, h, w); the folder may grow."""

    def __init__(self, folder: Path):
        self.folder, self.read = folder, set()
        self.scenes: list[Scene] = []
        self.latents = torch.empty(0)

    def refresh(self) -> None:
        new = sorted(set(self.folder.glob("*.safetensors")) - self.read)
        for path in new:
            self.scenes += encoded_scenes(int(path.stem))[0]
        parts = [load_file(path)["latents"] for path in new]
        self.latents = torch.cat([self.latents, *parts] if len(self.latents) else parts)
        self.read |= set(new)


def random_caption(scene: Scene, generator: torch.Generator) -> str:
    """The caption with each attribute left out once in ten times, and nothing at all once in ten
    times."""
    drop = torch.rand(4, generator=generator) < 0.1
    return "" if drop[0] else caption(scene, fill=not drop[1], color=not drop[2], background=not drop[3])


def train_denoiser(pipe, folder: Path, minutes: float, rate: float, batch: int, generator, save) -> None:
    """Noise prediction with min-SNR weights (Hang et al. 2303.09556), UNet and text encoder
    together."""
    encoded = Encoded(folder)
    model = torch.nn.ModuleList([pipe.unet.train(), pipe.text_encoder.train()])
    device = pipe.unet.device
    abar = pipe.scheduler.alphas_cumprod.to(device)
    stage = Stage(model, minutes, rate, 0.999, save)
    for _ in stage:
        if stage.step % 200 == 0:
            encoded.refresh()
            print(f"{len(encoded.scenes)} scenes", flush=True)
        rows = torch.randint(len(encoded.scenes), (batch,), generator=generator)
        x = encoded.latents[rows].to(device)
        words = [random_caption(encoded.scenes[i], generator) for i in rows.tolist()]
        tokens = pipe.tokenizer(
            words, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
        ).input_ids
        t = torch.randint(1000, (batch,), generator=generator).to(device)
        shared = torch.randn(*x.shape[:2], 1, 1, generator=generator)
        noise = (torch.randn(x.shape, generator=generator) + OFFSET * shared).to(device)
        a = abar[t].view(-1, 1, 1, 1)
        with torch.autocast(device.type, torch.bfloat16):
            context = pipe.text_encoder(tokens.to(device)).last_hidden_state
            predicted = pipe.unet(a.sqrt() * x + (1 - a).sqrt() * noise, t, context).sample.float()
        snr = (a / (1 - a)).flatten()
        error = (predicted - noise).square().mean((1, 2, 3))
        # the second factor: words bind where the noise is high
        weight = snr.clamp(max=5) / snr * snr.clamp(max=1) ** -0.3
        stage.learn((weight * error).mean(), error.mean().item())


def measure_latents(vae, folder: Path) -> None:
    """Set the scale that makes latents of unit deviation; fit latent channels (and 1) to RGB in
    [-1, 1] for quick previews."""
    pictures = render(random_scenes(128, seed=1))
    latents = torch.cat([encode(vae, part) for part in pictures.split(16)])
    print("deviation of the channels", [round(v, 2) for v in latents.std((0, 2, 3)).tolist()])
    scale = round(1 / latents.std().item(), 4)
    vae.register_to_config(scaling_factor=scale)
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


def load_parts(pipe, folder: Path) -> None:
    """What lies in the folder, where it fits: a layer that is new there stays as it was drawn."""
    files = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "model"}
    for part, name in files.items():
        path = folder / part / f"{name}.safetensors"
        if path.exists():
            stored = load_file(path)
            if part == "text_encoder":
                stored = {key.removeprefix("text_model."): value for key, value in stored.items()}
            module = getattr(pipe, part)
            strange = module.load_state_dict({k: v.float() for k, v in stored.items()}, strict=False)
            print(f"{part}: {len(strange.missing_keys)} tensors are new, {len(strange.unexpected_keys)} unknown")
            scale = json.loads((folder / part / "config.json").read_text()).get("scaling_factor")
            if scale:
                module.register_to_config(scaling_factor=scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("stage", choices=STAGES)
    add("--out", type=Path, default=Path("out/model"), help="folder of the pipeline")
    add("--minutes", type=float, default=60)
    add("--resume", action="store_true", help="start from what is in the folder")
    add("--learning-rate", type=float, default=1e-3, help="the greatest")
    add("--whole", type=float, default=0.5, help="autoencoder: share of the time for whole pictures")
    add("--batch", type=int, default=16, help="denoiser: latents a step")
    add("--encoded", type=Path, default=Path("out/encoded"), help="folder of encoded scenes")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)  # the initial weights
    generator = torch.Generator().manual_seed(args.seed)
    pipe = build_pipeline(args.out)
    if args.resume or args.stage != "autoencoder":
        load_parts(pipe, args.out)
    for part in (pipe.vae, pipe.unet, pipe.text_encoder):
        part.to(args.device)
    if args.stage in ("autoencoder", "decoder"):
        if args.stage == "decoder":
            pipe.vae.encoder.requires_grad_(False)
            pipe.vae.quant_conv.requires_grad_(False)

        def save(vae):
            copy.deepcopy(vae).save_pretrained(args.out / "vae")

        train_autoencoder(pipe.vae, args.minutes, args.learning_rate, args.whole, generator, save)
    elif args.stage == "measure":
        measure_latents(pipe.vae.eval(), args.out)
        pipe.vae.save_pretrained(args.out / "vae")
    elif args.stage == "encode":
        encode_scenes(pipe.vae.eval(), args.encoded, args.minutes, args.seed)
    elif args.stage == "denoiser":

        def save(model):
            model[0].save_pretrained(args.out / "unet")
            model[1].save_pretrained(args.out / "text_encoder")

        train_denoiser(pipe, args.encoded, args.minutes, args.learning_rate, args.batch, generator, save)
    else:
        for part in (pipe.vae, pipe.unet, pipe.text_encoder):
            part.to("cpu", torch.float16)
        pipe.save_pretrained(args.out)
        name_as_published(args.out / "text_encoder" / "model.safetensors")


if __name__ == "__main__":
    main()
