"""Ways of making an edit: as the authors' code orders the work, as this package does, and plain
sampling beside them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...denoise import Denoise
from ...guidance import classifier_free
from ...inversions.choice import invert_by
from ...inversions.edit_friendly import auxiliary_path, invert
from ...maps import NoiseMaps
from ...models.stable_diffusion import Pipeline
from ...plan import TURBO, Plan, Preset
from ...replay import replay
from ...steps import schedule
from ..editing import Mode, edited_latents

CHUNK = 8  # timesteps in one call of an inversion
SOURCE, TARGET = "a striped red star on a blue background", "a striped green star on a blue background"

Way = Callable[[], tuple[Tensor, int]]  # -> the clean latent (B, C, *S), the bytes kept from the inversion for the edit


def authors(model: Pipeline, x0: Tensor, preset: Preset) -> Way:
    """An edit in the order of the authors' code: the whole path inverted, one timestep and one
    guidance branch a call, the state in x0's dtype.

    The same mathematics as ``ours``, the last residual included (the authors' code puts 0 there, at
    the same cost).
    """
    source = _one_branch_a_call(model, SOURCE, preset.guidance_source)
    target = _one_branch_a_call(model, TARGET, preset.guidance_target)
    sigmas = model.sigmas(preset.steps)

    def run() -> tuple[Tensor, int]:
        path = auxiliary_path(x0, Plan(sigmas)).to(x0.device)
        steps = schedule(sigmas)
        residuals = []
        for step, x, x_next in zip(steps, path, path[1:]):
            residuals.append(x_next - step.mean(x, _at(source, x, step.sigma), None))
        x = path[preset.skip]
        for step, residual in zip(steps[preset.skip :], residuals[preset.skip :]):
            x = step.mean(x, _at(target, x, step.sigma), None) + residual
        return x, path.nbytes + sum(residual.nbytes for residual in residuals)

    return run


def ours(model: Pipeline, x0: Tensor, preset: Preset, chunk: int = CHUNK) -> Way:
    """An edit as the package does it."""
    source = model.denoiser(SOURCE, guidance=preset.guidance_source)
    target = model.denoiser(TARGET, guidance=preset.guidance_target)
    sigmas = model.sigmas(preset.steps)

    def run() -> tuple[Tensor, int]:
        maps = invert(source, x0, Plan(sigmas, skip=preset.skip), chunk=chunk)
        return replay(target, maps, device=x0.device), bytes_of(maps)

    return run


def masked(model: Pipeline, x0: Tensor, preset: Preset) -> Way:
    """An edit as the package does it where the picture changes only where the prompts differ."""
    mode = Mode(preset.guidance_target, preset.guidance_source, mask="auto")
    return _edits(model, x0, preset, mode, 1, CHUNK)


def several(model: Pipeline, x0: Tensor, preset: Preset, count: int, a_call: int) -> Way:
    """``count`` edits of one inversion, ``a_call`` of them in each call."""
    mode = Mode(preset.guidance_target, preset.guidance_source)
    return _edits(model, x0, preset, mode, count, a_call)


def _edits(model: Pipeline, x0: Tensor, preset: Preset, mode: Mode, count: int, a_call: int) -> Way:
    source, sigmas = model.denoiser(SOURCE, guidance=preset.guidance_source), model.sigmas(preset.steps)
    options = {"chunk": a_call, "device": x0.device}

    def run() -> tuple[Tensor, int]:
        maps = invert(source, x0, Plan(sigmas, skip=preset.skip), chunk=CHUNK)
        edits = edited_latents(mode, model, [maps] * count, SOURCE, [TARGET] * count, **options)
        return torch.cat(list(edits)), bytes_of(maps)

    return run


def turbo(model: Pipeline, x0: Tensor) -> Way:
    """An edit by the preset for few-step models."""
    source = model.denoiser(SOURCE, guidance=TURBO.guidance_source)
    options = {"guidance": TURBO.guidance_target, "source_guidance": TURBO.guidance_source}
    target = model.denoiser_from_source(SOURCE, TARGET, **options)
    plan = Plan(model.sigmas(TURBO.steps, trailing=True), TURBO.skip)

    def run() -> tuple[Tensor, int]:
        maps = invert_by("turbo", source, x0, plan, chunk=CHUNK)
        return replay(target, maps, device=x0.device), bytes_of(maps)

    return run


def bytes_of(maps: NoiseMaps) -> int:
    return maps.sigmas.nbytes + sum(tensor.nbytes for tensor in maps.tensors().values())


def unet_alone(model: Pipeline, x0: Tensor, samples: int, a_call: int) -> Way:
    """The UNet and nothing else: what all others could reach."""
    unet, (hidden, pooled) = model.pipe.unet, model.embed(TARGET)
    like = unet.conv_in.weight
    x = x0[:1].to(like).repeat(a_call, *[1] * (x0.dim() - 1))
    inputs = {"encoder_hidden_states": hidden.repeat(a_call, 1, 1), "added_cond_kwargs": None}
    if pooled is not None:
        sizes = torch.zeros(a_call, 6).to(pooled)
        inputs["added_cond_kwargs"] = {"text_embeds": pooled.repeat(a_call, 1), "time_ids": sizes}
    timesteps = torch.full((a_call,), 500, device=like.device)

    @torch.no_grad()
    def run() -> tuple[Tensor, int]:
        for _ in range(samples // a_call):
            out = unet(x, timesteps, **inputs).sample
        return out, 0

    return run


def sampling(model: Pipeline, x0: Tensor, steps: int, guidance: float) -> Way:
    """Plain ancestral sampling of a new picture of x0's shape, both guidance branches in one call:
    little but the model's own time."""
    denoise, sigmas = model.denoiser(TARGET, guidance=guidance), model.sigmas(steps)

    def run() -> tuple[Tensor, int]:
        generator = torch.Generator(x0.device).manual_seed(0)
        like = {"size": x0.shape, "generator": generator, "device": x0.device}
        x = sigmas[0].item() * torch.randn(**like)
        for step in schedule(sigmas):
            x = step.mean(x, _at(denoise, x, step.sigma), None) + step.up * torch.randn(**like)
        return x, 0

    return run


def _one_branch_a_call(model: Pipeline, prompt: str, guidance: float) -> Denoise:
    without, with_prompt = (model.denoiser(prompt, guidance=branch) for branch in (0.0, 1.0))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return classifier_free(without(x, sigma), with_prompt(x, sigma), guidance)

    return denoise


def _at(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    return denoise(x, x.new_full((len(x),), sigma))
