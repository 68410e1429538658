"""Adapter for diffusers: a Stable Diffusion (1, 2, XL) pipeline as encode, denoise, decode (arXiv
2112.10752, High-Resolution Image Synthesis with Latent Diffusion Models)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..attention.pix2pix_zero import direction
from ..attention.words import Tokens, spelled
from ..checks import BadArgument, check_finite
from ..denoise import Denoise
from ..guidance import Term, classifier_free, several
from ..replay import Several

Words = tuple[Tensor, Tensor | None]  # what a text encoder makes of a prompt: (hidden, pooled)
Prompt = str | list[str] | Words  # one for all, one for each item of the batch, or either as ``embed`` gives it


class Guided(NamedTuple):
    """A denoiser in two parts, so that those of several edits can ask in one batch."""

    words: Sequence[Words]  # the prompts
    combine: Callable[..., Tensor]  # what is made of the predictions under them


class Edit(NamedTuple):
    """One edit of several: what it wants, how strongly (below 0: less of it), and where."""

    prompt: Prompt
    scale: float
    mask: Tensor | None = None  # (1 or B, 1, h, w) in [0, 1]


def leading_timesteps(steps: int, known: int, offset: int) -> Tensor:
    """The timesteps of a "leading" schedule (steps,), from the noisy end down: i (known // steps) +
    offset for i = steps - 1, ..., 0; with a smaller offset where the first would not be known."""
    timesteps = torch.arange(steps).flip(0) * (known // steps)
    return timesteps + min(offset, known - 1 - int(timesteps[0]))


def trailing_timesteps(steps: int, known: int) -> Tensor:
    """The timesteps of a "trailing" schedule (steps,), which few-step models were trained for:
    known (steps - i) / steps - 1 for i = 0, ..., steps - 1, so the last of the ``known`` ones
    first."""
    return known * torch.arange(steps, 0, -1) // steps - 1


class Pipeline:
    """What the core needs of a ``StableDiffusionPipeline`` or ``StableDiffusionXLPipeline`` (eps or
    v prediction).

    The pipeline is only lent: its scheduler, attention processors and device are never changed.
    Latents are in the model's space (scaled), VE coordinates x. The UNet gets x / sqrt(1 +
    sigma^2); from its output follows

        eps prediction    x0_hat = x - sigma eps
        v prediction      x0_hat = x / (1 + sigma^2) - sigma / sqrt(1 + sigma^2) v

    (v = sqrt(abar) eps - sqrt(1 - abar) x_0: arXiv 2202.00512, Progressive Distillation for Fast
    Sampling of Diffusion Models). Raises BadArgument for a pipeline or prediction type that does
    not fit.
    """

    def __init__(self, pipe):
        if not hasattr(pipe, "unet") or not hasattr(pipe, "vae") or not hasattr(pipe, "encode_prompt"):
            needed = "A Stable Diffusion or Stable Diffusion XL pipeline of diffusers is needed"
            raise BadArgument("pipe", f"{needed}; got {type(pipe).__name__}.")
        self.pipe = pipe
        self.prediction = pipe.scheduler.config.get("prediction_type")
        if self.prediction not in ("epsilon", "v_prediction") or not hasattr(pipe.scheduler, "alphas_cumprod"):
            rule = "The model must predict 'epsilon' or 'v_prediction' on a DDPM schedule"
            raise BadArgument("pipe", f"{rule}; its {type(pipe.scheduler).__name__} says {self.prediction!r}.")
        taken, given = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
        if taken != given:
            rule = f"The UNet must take the autoencoder's {given} latent channels alone"
            raise BadArgument("pipe", f"{rule}; it takes {taken} (an inpainting or upscaling model?).")
        # A zero terminal SNR would be an infinite sigma.
        abar = pipe.scheduler.alphas_cumprod.double().cpu().clamp(min=2**-24)
        self.sigma_of_timestep = ((1 - abar) / abar).sqrt()  # (1000,), increasing

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        config: str | Path | None = None,
    ) -> Pipeline:
        """From a diffusers folder or a single ``.safetensors`` checkpoint. Raises FileNotFoundError
        or BadArgument.

        A single file has no configuration in it: diffusers gets it from the hub, or from
        ``config``, the folder of a pipeline of the same kind.
        """
        import diffusers

        path = Path(path)
        if not path.exists():
            rule = "The model must be a diffusers folder or a .safetensors file on this machine"
            raise FileNotFoundError(f"{rule}; {path} does not exist.")
        try:
            if path.is_dir():
                pipe = diffusers.DiffusionPipeline.from_pretrained(path, **_without_checker(path))
            else:
                pipe = _from_single_file(path, config)
        except Exception as error:  # whatever the loaders of foreign files raise
            raise BadArgument("path", f"{path} could not be loaded as a Stable Diffusion model: {error}") from error
        model = cls(pipe.to(device, dtype))
        if dtype == torch.float16 and pipe.vae.config.force_upcast:
            pipe.vae.to(torch.float32)  # such autoencoders overflow in float16
        return model

    @property
    def device(self) -> torch.device:
        return self.pipe.unet.device

    @property
    def cell(self) -> int:
        """Picture pixels a side of one latent cell (8 for Stable Diffusion)."""
        return 2 ** (len(self.pipe.vae.config.block_out_channels) - 1)

    def sigmas(self, steps: int, *, trailing: bool = False) -> Tensor:
        """The paper's schedule (T+1,), float64: evenly spaced timesteps from the top down
        ("leading", or "trailing" for few-step models), then 0. Raises BadArgument."""
        known = len(self.sigma_of_timestep)
        if not 1 <= steps <= known:
            raise BadArgument("steps", f"steps must lie in [1, {known}]; got {steps}.")
        offset = self.pipe.scheduler.config.get("steps_offset", 0)
        timesteps = trailing_timesteps(steps, known) if trailing else leading_timesteps(steps, known, offset)
        return torch.cat((self.sigma_of_timestep[timesteps], torch.zeros(1, dtype=torch.float64)))

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] as clean latents (B, 4, H/8, W/8), float32. H and W must
        be multiples of the cell."""
        cell, (height, width) = self.cell, pictures.shape[-2:]
        if pictures.dim() != 4 or pictures.shape[1] != 3 or height % cell or width % cell:
            rule = f"Pictures must have shape (B, 3, H, W) with H and W multiples of {cell}"
            raise BadArgument("pictures", f"{rule}; got {tuple(pictures.shape)}.")
        vae = self.pipe.vae
        latents = vae.encode((pictures * 2 - 1).to(vae.device, vae.dtype)).latent_dist.mode().float()
        return (latents - (vae.config.shift_factor or 0)) * vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Clean latents (B, 4, h, w) as pictures (B, 3, 8h, 8w) in [0, 1], float32."""
        vae = self.pipe.vae
        latents = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0)
        pictures = vae.decode(latents.to(vae.device, vae.dtype)).sample.float()
        check_finite(pictures, "latents", f"the decoded picture (a {vae.dtype} overflow? try float32)")
        return (pictures / 2 + 0.5).clamp(0, 1)

    def denoiser(
        self, prompt: Prompt, *, guidance: float, negative: str = "", size: tuple[int, int] | None = None
    ) -> Denoise:
        """``denoise(x, sigma) -> x0_hat`` under a prompt with classifier-free guidance.

        One prompt for all, or one for each item of the batch. Both branches run as one batch;
        guidance 1 needs only the prompt, guidance 0 only the negative. ``size`` as for ``ask``.
        """
        return self.alone(self.guided(prompt, guidance=guidance, negative=negative), size)

    def guided(self, prompt: Prompt, *, guidance: float, negative: str = "") -> Guided:
        """What ``denoiser`` asks and makes of it."""
        if guidance in (0, 1):
            return Guided([self.embed(prompt if guidance else negative)], lambda one: one)
        words = [self.embed(negative), self.embed(prompt)]
        return Guided(words, lambda u, t: classifier_free(u, t, guidance))

    def denoiser_from_source(
        self,
        source: Prompt,
        target: Prompt,
        *,
        guidance: float,
        source_guidance: float,
        negative: str = "",
        size: tuple[int, int] | None = None,
    ) -> Denoise:
        """``denoise(x, sigma) -> x0_hat`` with guidance from the source prompt to the target prompt
        (``guidance.from_source``), for maps inverted with ``source_guidance``; one edit of
        ``denoiser_of_edits``."""
        options = {"source_guidance": source_guidance, "negative": negative, "size": size}
        return self.denoiser_of_edits(source, [Edit(target, guidance)], **options)

    def denoiser_of_edits(
        self,
        source: Prompt,
        edits: Sequence[Edit],
        *,
        source_guidance: float,
        negative: str = "",
        size: tuple[int, int] | None = None,
    ) -> Denoise:
        """``denoise(x, sigma) -> x0_hat`` with guidance from the source prompt to several edits at
        once (``guidance.several``), for maps inverted with ``source_guidance``.

        All prompts run as one batch: a row a latent for the source and each edit, and one more
        where ``source_guidance`` is not 1.
        """
        return self.alone(self.guided_of_edits(source, edits, source_guidance=source_guidance, negative=negative), size)

    def guided_of_edits(
        self, source: Prompt, edits: Sequence[Edit], *, source_guidance: float, negative: str = ""
    ) -> Guided:
        """What ``denoiser_of_edits`` asks and makes of it."""
        prompts = [source, *(edit.prompt for edit in edits)]

        def combine(s: Tensor, *rest: Tensor) -> Tensor:
            base = s if source_guidance == 1 else classifier_free(rest[-1], s, source_guidance)
            masks = [None if edit.mask is None else edit.mask.to(s) for edit in edits]
            return several(base, s, [Term(t, edit.scale, mask) for t, edit, mask in zip(rest, edits, masks)])

        words = prompts if source_guidance == 1 else [*prompts, negative]
        return Guided([self.embed(prompt) for prompt in words], combine)

    def alone(self, guided: Guided, size: tuple[int, int] | None = None) -> Denoise:
        """``denoise(x, sigma)`` of one edit."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return guided.combine(*self.ask([(x, words) for words in guided.words], sigma, size=size))

        return denoise

    def together(self, edits: Sequence[Guided]) -> Several:
        """``denoise(x, sigma, which)`` of several edits, for ``replay_several``: all prompts of all
        of them run as one batch."""

        def denoise(x: Tensor, sigma: Tensor, which: Sequence[int]) -> Tensor:
            parts = list(zip((edits[i] for i in which), x.chunk(len(which))))
            rows = [(part, words) for guided, part in parts for words in guided.words]
            predictions = iter(self.ask(rows, sigma[: len(parts[0][1])]))
            return torch.cat([guided.combine(*(next(predictions) for _ in guided.words)) for guided, _ in parts])

        return denoise

    @torch.no_grad()
    def ask(
        self, rows: Sequence[tuple[Tensor, Words]], sigma: Tensor, *, size: tuple[int, int] | None = None
    ) -> list[Tensor]:
        """x0_hat of latents x (N, C, h, w), each under words of its own, at the same sigma (N,);
        all run as one batch. ``size`` (height, width) in pixels is what SDXL is told of the picture
        (default: the latent's own)."""
        return self.asked(rows, sigma, size=size)

    def asked(
        self, rows: Sequence[tuple[Tensor, Words]], sigma: Tensor, *, size: tuple[int, int] | None = None
    ) -> list[Tensor]:
        """``ask``, with a gradient where one is wanted."""
        count = len(sigma)
        for _, (hidden, _) in rows:
            if count % len(hidden):
                rule = f"{len(hidden)} prompts need a batch of as many latents, or a multiple"
                raise BadArgument("x", f"{rule}; got {count}.")
        unet, table = self.pipe.unet, self.sigma_of_timestep
        weight = unet.conv_in.weight  # knows device and dtype; diffusers' own properties walk all modules
        nearest = (sigma.cpu().double().log()[:, None] - table.log()).abs().argmin(1)  # (N,) timesteps
        sigma = sigma.view(-1, 1, 1, 1)
        x = torch.cat([x / (sigma**2 + 1).sqrt() for x, _ in rows])
        told = size or tuple(self.cell * n for n in x.shape[-2:])
        outputs = unet(
            x.to(weight),
            nearest.repeat(len(rows)).to(weight.device),
            encoder_hidden_states=torch.cat([_tile(hidden, count) for _, (hidden, _) in rows]),
            added_cond_kwargs=self._added([pooled for _, (_, pooled) in rows], told, count),
        ).sample
        return [self._x0_hat(x, sigma, output) for (x, _), output in zip(rows, outputs.to(x).chunk(len(rows)))]

    def _x0_hat(self, x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        """What the UNet's output says of the clean latent; sigma (N, 1, 1, 1)."""
        if self.prediction == "v_prediction":
            return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1).sqrt()
        return x - sigma * output

    @torch.no_grad()
    def embed(self, prompt: Prompt) -> Words:
        """(hidden, pooled) of a prompt; pooled is None but for SDXL. What is embedded already comes
        back."""
        if isinstance(prompt, tuple):
            return prompt
        encoded = self.pipe.encode_prompt(
            prompt=prompt, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return encoded[0], encoded[2] if len(encoded) == 4 else None

    def moved(self, prompt: Prompt, sources: Sequence[str], targets: Sequence[str]) -> Words:
        """A prompt's words moved by the direction from some sentences to others
        (``pix2pix_zero.direction``), in every position of the context, and so the pooled ones."""
        parts = zip(self.embed(prompt), self.embed(list(sources)), self.embed(list(targets)))
        hidden, pooled = (None if own is None else own + direction(*sides) for own, *sides in parts)
        return hidden, pooled

    def tokens(self, prompt: str) -> Tokens:
        """Where the prompt's words lie in its context."""
        tokenizer = self.pipe.tokenizer
        length = tokenizer.model_max_length
        ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True).input_ids
        pieces = tokenizer.convert_ids_to_tokens(ids)
        end = ids.index(tokenizer.eos_token_id, 1)
        words = spelled(enumerate(pieces[1:end], start=1))
        return Tokens(words, start=(0,), end=(end,), padding=tuple(range(end + 1, length)))

    def _added(self, pooled: list[Tensor | None], size: tuple[int, int], count: int) -> dict[str, Tensor] | None:
        """SDXL's pooled text and sizes (original, crop, target), one row an input; None for other
        models."""
        if pooled[0] is None:
            return None
        times = torch.tensor([[*size, 0, 0, *size]]).to(pooled[0])
        return {
            "text_embeds": torch.cat([_tile(p, count) for p in pooled]),
            "time_ids": times.expand(count * len(pooled), -1),
        }


def _tile(embedding: Tensor, count: int) -> Tensor:
    """(B, ...) repeated to (count, ...), in the order of the inversion's chunks: timestep by
    timestep."""
    return embedding.repeat(count // len(embedding), *[1] * (embedding.dim() - 1))


def _without_checker(path: Path) -> dict:
    """The safety checker looks at finished pictures only: not loaded, where the folder has one."""
    import json

    index = path / "model_index.json"
    if not index.exists():
        raise ValueError(f"{path} must be a folder of a diffusers pipeline; it has no model_index.json.")
    has_checker = "safety_checker" in json.loads(index.read_text())
    return {"safety_checker": None, "requires_safety_checker": False} if has_checker else {}


def _from_single_file(path: Path, config: str | Path | None):
    """A checkpoint as the pipeline that its keys speak of."""
    import diffusers
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            keys = set(file.keys())
    except SafetensorError as error:
        rule = f"{path} must be a diffusers folder or a .safetensors checkpoint"
        raise ValueError(f"{rule}; reading it failed: {error}.") from error
    if not any(key.startswith("model.diffusion_model.") for key in keys):  # diffusers would look for it on the hub
        rule = f"{path} must be a whole checkpoint, with tensors named model.diffusion_model"
        raise ValueError(f"{rule}; it has {len(keys)} others, such as {min(keys, default='none')[:80]}.")
    large = any(key.startswith("conditioner.embedders.1.") for key in keys)
    kind: Callable = diffusers.StableDiffusionXLPipeline if large else diffusers.StableDiffusionPipeline
    known = {"config": str(config), "local_files_only": True} if config else {}
    return kind.from_single_file(str(path), **known)
