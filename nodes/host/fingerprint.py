"""What a model is, in a line that noise maps remember."""

from __future__ import annotations

import hashlib

import torch

SAMPLED = 16  # weights that are read: enough to tell checkpoints apart, and quick


def fingerprint_of(model) -> str:
    """ComfyUI's class of a MODEL, what it predicts, and a hash of some weights of the checkpoint in
    its precision: norms and biases, which LoRAs leave alone. For instance "SDXL EPS 0123456789ab".
    """
    sampling = model.get_model_object("model_sampling")
    prediction = next((kind.__name__ for kind in type(sampling).__mro__ if "calculate_denoised" in vars(kind)), "")
    flat = [weight for weight in model.model.diffusion_model.parameters() if weight.dim() == 1]
    read = [weight for weight in flat if weight.is_floating_point() and weight.device.type != "meta"]
    digest = hashlib.sha256()
    for weight in read[:: max(1, len(read) // SAMPLED)]:
        digest.update(weight.detach().to("cpu", torch.float32).numpy().tobytes())
    return f"{type(model.model).__name__} {prediction} {digest.hexdigest()[:12]}"
