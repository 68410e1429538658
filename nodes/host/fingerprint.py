"""What a model is, in a few words that noise maps remember: its class, what it predicts, and a hash
of some of its weights."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch

SAMPLED = 16  # weights that are read: enough to tell checkpoints apart, and quick


class Fingerprint(NamedTuple):
    kind: str  # ComfyUI's class, for instance SDXL
    prediction: str  # EPS, V_PREDICTION, CONST (a flow), ...
    weights: str  # of the checkpoint in its precision; "" where none could be read

    def __str__(self) -> str:
        return " ".join(self)

    @classmethod
    def read(cls, text: str) -> Fingerprint | None:
        """What ``str`` wrote; None for anything else."""
        parts = text.split(" ")
        return cls(*parts) if len(parts) == 3 else None


def fingerprint_of(model) -> Fingerprint:
    """Of a MODEL, whatever LoRAs and patches are on it: norms and biases are read, which LoRAs leave
    alone."""
    sampling = model.get_model_object("model_sampling")
    prediction = next((kind.__name__ for kind in type(sampling).__mro__ if "calculate_denoised" in vars(kind)), "?")
    known = [
        weight
        for _, weight in model.model.diffusion_model.named_parameters()
        if weight.dim() == 1 and weight.is_floating_point() and weight.device.type != "meta"
    ]
    digest = hashlib.sha256()
    for weight in known[:: max(1, len(known) // SAMPLED)]:
        digest.update(weight.detach().to("cpu", torch.float32).numpy().tobytes())
    return Fingerprint(type(model.model).__name__, prediction, digest.hexdigest()[:12] if known else "")
