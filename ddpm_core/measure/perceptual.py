"""Metrics that need a model of their own, LPIPS (arXiv 1801.03924, The Unreasonable Effectiveness
of Deep Features as a Perceptual Metric) and CLIP (arXiv 2104.08718, CLIPScore); pictures are (1, 3,
H, W) in [0, 1]."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor


class Unavailable(Exception):
    """A metric's package or weights are not on this machine; the message says what to install or
    download."""


def load_lpips(device: str | torch.device = "cpu") -> Callable[[Tensor, Tensor], float]:
    """LPIPS (AlexNet, version 0.1) as a function of two pictures: 0 where
    nothing differs. Raises Unavailable."""
    try:
        import lpips
    except Exception as error:  # the torchvision that it imports raises more than ImportError where it does not fit
        hint = "install it with `python -m pip install lpips`, and a torchvision that fits your torch"
        raise Unavailable(f"LPIPS needs the package lpips: {hint}. Importing it failed: {_line(error)}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips asks torchvision for weights in a deprecated way
            model = lpips.LPIPS(net="alex", verbose=False).to(device)
    except Exception as error:  # no connection, or a broken download
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        needs = f"LPIPS needs AlexNet's weights, which torchvision downloads once into {folder}"
        raise Unavailable(f"{needs}; that failed: {_line(error)}") from error

    @torch.no_grad()
    def distance(picture: Tensor, other: Tensor) -> float:
        return model(picture.to(device) * 2 - 1, other.to(device) * 2 - 1).item()

    return distance


def load_clip(name: str, device: str | torch.device = "cpu") -> Callable[[Tensor, str], float]:
    """The CLIP score, without its clipping at 0, as a function of a picture and a prompt: 100 times
    the cosine similarity.

    ``name`` is a folder of a transformers CLIP model, or its name on the hub. A prompt longer than
    the model's context is cut. Raises Unavailable.
    """
    try:
        from transformers import CLIPModel, CLIPProcessor

        def load(**where):
            model = CLIPModel.from_pretrained(name, **where).to(device).train(False)
            return model, CLIPProcessor.from_pretrained(name, **where)

        try:
            model, processor = load(local_files_only=True)
        except OSError:
            model, processor = load()
    except Exception as error:  # whatever the loaders of foreign files and the hub raise
        folder = "give --clip the folder of a CLIP model of transformers"
        hint = f"{folder}, or start once with a connection to download it by its name"
        needs = f"The CLIP score needs the model {name!r}: {hint}"
        raise Unavailable(f"{needs}. Loading it failed: {_line(error)}") from error
    longest = model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def score(picture: Tensor, prompt: str) -> float:
        from .pictures import to_image

        inputs = processor(
            text=[prompt], images=to_image(picture[0]), return_tensors="pt", truncation=True, max_length=longest
        )
        outputs = model(**inputs.to(device))
        return 100 * torch.cosine_similarity(outputs.image_embeds, outputs.text_embeds).item()

    return score


def _line(error: Exception) -> str:
    """The first line of an error, with its type."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
