"""What a model is, in a line that noise maps remember."""

from __future__ import annotations

import hashlib

import torch

SAMPLED = 16  # weights that are read: enough to tell checkpoints apart, and quick


def fingerprint_of(model) -> str:
    """ComfyUI's class of a MODEL, what it predicts, and a hash of some weights of the checkpoint in
    its precision, norms and biases, as they are without LoRAs. For instance "SDXL EPS 0123456789ab".
    """
    sampling = model.get_model_object("model_sampling")
    prediction = next((kind.__name__ for kind in type(sampling).__mro__ if "calculate_denoised" in vars(kind)), "")
    named = model.model.diffusion_model.named_parameters()
    flat = [_unpatched(model, f"diffusion_model.{name}", weight) for name, weight in named if weight.dim() == 1]
    read = [weight for weight in flat if weight.is_floating_point() and weight.device.type != "meta"]
    digest = hashlib.sha256()
    for weight in read[:: max(1, len(read) // SAMPLED)]:
        digest.update(weight.detach().to("cpu", torch.float32).numpy().tobytes())
    return f"{type(model.model).__name__} {prediction} {digest.hexdigest()[:12]}"


def _unpatched(model, key: str, weight: torch.Tensor) -> torch.Tensor:
    """A weight as the checkpoint has it: a loaded model's may have a LoRA in it."""
    return model.backup[key].weight if key in model.backup else weight
