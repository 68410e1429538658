"""The real UNets' shapes with random weights: what they cost, without their weights."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from ...models.stable_diffusion import Pipeline

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
    """``random_unet`` with random embeddings for prompts (one for the empty prompt, one for all
    others) and no autoencoder: for timing, not for pictures."""
    from diffusers import DDIMScheduler

    from ...demo.model import SCHEDULER

    unet = random_unet(config, device, dtype)
    shapes = [(1, TOKENS, unet.config.cross_attention_dim)] * 2
    if unet.config.addition_embed_type == "text_time":
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        shapes += [(1, pooled)] * 2
    generator = torch.Generator(device).manual_seed(1)
    embeddings = [torch.randn(shape, generator=generator, device=device, dtype=dtype) for shape in shapes]

    def encode_prompt(prompt: str, **_) -> list[torch.Tensor | None]:
        """As diffusers without guidance: (hidden, None), or (hidden, None, pooled, None)."""
        of_prompt = embeddings[1::2] if prompt == "" else embeddings[::2]
        return [part for tensor in of_prompt for part in (tensor, None)]

    vae = SimpleNamespace(config=SimpleNamespace(latent_channels=unet.config.in_channels, block_out_channels=(0,) * 4))
    scheduler = DDIMScheduler(**SCHEDULER)
    return Pipeline(SimpleNamespace(unet=unet, vae=vae, scheduler=scheduler, encode_prompt=encode_prompt))
