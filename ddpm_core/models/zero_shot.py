"""pix2pix-zero's step in a diffusers UNet (arXiv 2302.03027, Zero-shot Image-to-Image Translation),
on stored noise maps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention.pix2pix_zero import distance
from ..checks import BadArgument, check_finite
from ..denoise import Denoise
from ..maps import NoiseMaps
from ..steps import Solver
from .attention import lent
from .stable_diffusion import Pipeline, Prompt, Words

LOSS_SCALE = 2.0**8  # in half precision: small gradients would be rounded to 0 on their way through the network


def nearer(
    model: Pipeline,
    maps: NoiseMaps,
    source: Prompt,
    target: Prompt,
    *,
    rate: float = 0.1,
    guidance: float,
    source_guidance: float | None = None,
    negative: str = "",
) -> Denoise:
    """A denoiser for a replay of ``maps`` that first moves the state towards the source's
    cross-attention:

        x' = x - rate (1 + sigma^2) grad_x distance(A(x; target), A(x_i; source))

    with x_i the stored path, so that nothing has to be kept of an earlier pass; (1 + sigma^2)
    because the published step is one of the UNet's input x / sqrt(1 + sigma^2). One state moves,
    by the gradient of the target's row (the published code moves one for each branch of the
    guidance, and goes on with the negative one's). Its prediction is what leads x to where the
    step of x' goes: x0_hat(x') + carry / reach (x' - x).

    Guidance as for ``controlled``. Two samples a step beside the guidance's own, and a backward
    pass through one of them. ``rate`` 0 leaves the state alone, at no cost. Raises BadArgument.
    """
    if maps.solver is not Solver.FIRST_ORDER:
        raise BadArgument("maps", f"pix2pix-zero needs steps of first order; these maps have {maps.solver.value}.")
    if not rate >= 0:
        raise BadArgument("rate", f"rate must be 0 or more; got {rate:g}.")
    ours, theirs = model.embed(target), model.embed(source)
    if source_guidance is None:
        predict = model.denoiser(ours, guidance=guidance, negative=negative)
    else:
        options = {"guidance": guidance, "source_guidance": source_guidance, "negative": negative}
        predict = model.denoiser_from_source(theirs, ours, **options)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        if not rate:
            return predict(x, sigma)
        step = maps.step_at(sigma)
        path = maps.latents[step].to(x)
        gradient = attention_gradient(model, (x, ours), (path, theirs), sigma)
        change = -rate * (1 + sigma**2).view(-1, 1, 1, 1) * gradient
        at = maps.steps[step]
        return predict(x + change, sigma) + at.carry / at.reach * change

    return denoise


def attention_gradient(
    model: Pipeline, row: tuple[Tensor, Words], reference: tuple[Tensor, Words], sigma: Tensor
) -> Tensor:
    """The gradient of ``distance`` between the cross-attention of a row (x, words) and of a
    reference, with regard to x: (B, C, h, w). Raises NotFinite."""
    with torch.no_grad():
        references = cross_maps(model, reference, sigma)
    x, words = row
    half = model.pipe.unet.conv_in.weight.dtype.itemsize < 4
    scale = LOSS_SCALE if half else 1.0
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        loss = scale * distance(cross_maps(model, (x, words), sigma), references).sum()
        (gradient,) = torch.autograd.grad(loss, x)
    check_finite(gradient, "x", "the gradient of the cross-attention (a float16 overflow? try bfloat16 or float32)")
    return gradient / scale


def cross_maps(model: Pipeline, row: tuple[Tensor, Words], sigma: Tensor) -> list[Tensor]:
    """The cross-attention (B, heads, Lq, Lk) of every layer for a row (x, words), in float32 or
    better."""
    maps: list[Tensor] = []

    def recorder(name: str, inner):
        return _Recorder(inner, maps) if ".attn2." in name else inner

    with lent(model.pipe.unet, recorder):
        model.asked([row], sigma)
    return maps


class _Recorder(torch.nn.Module):
    """The attention of another processor, noted."""

    def __init__(self, inner, maps: list[Tensor]):
        super().__init__()
        self.inner, self.maps = inner, maps

    def forward(self, attn, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args, **kwargs):
        q, k = (
            layer(part).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, part in ((attn.to_q, hidden_states), (attn.to_k, encoder_hidden_states))
        )
        exact = torch.promote_types(q.dtype, torch.float32)
        self.maps.append((attn.scale * q.to(exact) @ k.to(exact).mT).softmax(-1))
        return self.inner(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
