"""What is measured of an edit, and with what."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...measure.metrics import psnr, ssim
from ...measure.perceptual import Unavailable, load_clip, load_lpips

METRICS = {
    "lpips": ("LPIPS", ".3f", "distance of the edit from its source picture, AlexNet; lower keeps more"),
    "clip": (
        "CLIP score",
        ".2f",
        "100 times the cosine similarity of the edit and its target prompt; higher follows the prompt better",
    ),
    "psnr": ("PSNR, dB", ".2f", "between the edit and its source picture; higher keeps more"),
    "ssim": ("SSIM", ".3f", "between the edit and its source picture; higher keeps more"),
    "diversity": (
        "diversity",
        ".3f",
        "mean LPIPS between the edits of a picture and prompt by different seeds; "
        "one number for each, in the row of the last seed",
    ),
    "seconds_inversion": (
        "seconds to invert",
        ".2f",
        "from the source picture to its maps: autoencoder, source prompt, model; "
        "once for all prompts of a picture and seed",
    ),
    "seconds_edit": (
        "seconds to edit",
        ".2f",
        "from the maps to the edited picture: target prompt, model, autoencoder",
    ),
}

# (source picture, edit, target prompt), the pictures (1, 3, H, W) in [0, 1]
Metric = Callable[[Tensor, Tensor, str], float]


def load_metrics(clip: str, device: str) -> tuple[dict[str, Metric], dict[str, str]]:
    """The metrics that this machine has, and why each other one is missing."""
    metrics, missing = {"psnr": lambda source, edited, prompt: psnr(source, edited).item()}, {}
    try:
        import kornia.metrics  # noqa: F401
    except ImportError as error:
        hint = "install it with `python -m pip install kornia`"
        missing["ssim"] = f"SSIM needs the package kornia: {hint}. Importing it failed: {error}"
    else:
        metrics["ssim"] = lambda source, edited, prompt: ssim(source, edited).item()
    try:
        distance = load_lpips(device)
        metrics["lpips"] = lambda source, edited, prompt: distance(source, edited)
    except Unavailable as error:
        missing["lpips"] = str(error)
    try:
        score = load_clip(clip, device)
        metrics["clip"] = lambda source, edited, prompt: score(edited, prompt)
    except Unavailable as error:
        missing["clip"] = str(error)
    return metrics, missing
