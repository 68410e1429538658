"""EditMetrics: how far an edited picture lies from its source, and where."""

from __future__ import annotations

import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..ddpm_core.measure.metrics import psnr, ssim
from ..ddpm_core.measure.perceptual import Unavailable, load_lpips
from .host.wires import NodeError, known

NODE = "EditMetrics"
SMALLEST = 11  # pixels: SSIM's window
CAP = 100.0  # dB on the psnr wire


class EditMetrics(io.ComfyNode):
    """PSNR, SSIM (Wang et al. 2004), LPIPS (arXiv 1801.03924, The Unreasonable Effectiveness of
    Deep Features as a Perceptual Metric) and the similarity of CLIP's embeddings (arXiv 2103.00020,
    Learning Transferable Visual Models From Natural Language Supervision)."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EditMetrics",
            display_name="Edit Metrics",
            category="edit-friendly noise maps/measure",
            description="Measure how much of the source an edit keeps: PSNR, SSIM, LPIPS where it is installed, "
            "and CLIP's similarity of the two pictures.",
            **known(
                io.Schema,
                search_aliases=["PSNR", "SSIM", "LPIPS", "CLIP similarity", "compare images", "image difference"],
            ),
            inputs=[
                io.Image.Input(
                    "source",
                    tooltip="The source picture, or a batch. Better the one that went through VAE Encode and "
                    "Decode: no edit can come nearer to it.",
                ),
                io.Image.Input(
                    "edited",
                    tooltip="The edited picture, of the same size, or a batch; a single picture is measured against "
                    "every one of a batch.",
                ),
                io.Float.Input(
                    "gain",
                    default=4.0,
                    min=0.0,
                    max=100.0,
                    step=0.5,
                    tooltip="How much the difference picture is amplified, 0 to 100; 1 is as it is.",
                    **known(io.Float.Input, advanced=True),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where to measure PSNR, SSIM and LPIPS: for instance what should not change (the edited "
                    "region inverted). Scaled to the pictures.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="A CLIP vision model, for the CLIP image similarity: the cosine, -1 to 1, of the "
                    "embeddings of the two whole pictures. It says whether they show the same, not whether the edit "
                    "fits a text: the projections for that score do not travel on this wire.",
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(cls, source, edited, gain, mask=None, clip_vision=None, **kwargs) -> io.NodeOutput:
        source, edited = _pair(source, edited)
        mask = None if mask is None else _mask(mask, source.shape)
        try:
            ratios, similarities = psnr(source, edited, mask), ssim(source, edited, mask)
        except ImportError as error:
            remedy = "Run: python -m pip install kornia"
            raise NodeError(NODE, "source", f"SSIM needs kornia; {error}.", remedy) from error
        lines = [_line("PSNR", ratios, ".2f", " dB"), _line("SSIM", similarities, ".4f"), _lpips(source, edited, mask)]
        if clip_vision is not None:
            lines.append(_line("CLIP image similarity", _image_similarity(clip_vision, source, edited), ".4f"))
        share = "whole pictures" if mask is None else f"inside the mask, {100 * mask.mean():.1f} % of the picture"
        text = "\n".join([*lines, f"measured: {share}"])
        difference = ((source - edited).abs() * gain).clamp(0, 1).movedim(1, -1)
        return io.NodeOutput(text, difference, ratios.clamp(max=CAP).mean().item(), similarities.mean().item())


def _outputs() -> list:
    return [
        io.String.Output(
            id="figures",
            display_name="figures",
            tooltip="All figures as text; of a batch the mean, the smallest and the greatest.",
        ),
        io.Image.Output(
            id="difference",
            display_name="difference",
            tooltip="The absolute difference of the whole pictures times gain, cut off at 1; black is none.",
        ),
        io.Float.Output(
            id="psnr",
            display_name="psnr",
            tooltip="Mean peak signal-to-noise ratio, 0 to 100 dB; higher is nearer, identical pictures have 100.",
        ),
        io.Float.Output(id="ssim", display_name="ssim", tooltip="Mean structural similarity, -1 to 1; 1 is identical."),
    ]


def _pair(source: Tensor, edited: Tensor) -> tuple[Tensor, Tensor]:
    """Both pictures as (N, 3, H, W), one repeated for a batch of the other."""
    sizes = [f"{len(p)} of {p.shape[2]} x {p.shape[1]} pixels" for p in (source, edited)]
    got = f"; got {sizes[1]}, and {sizes[0]} at source."
    if source.shape[1:3] != edited.shape[1:3]:
        remedy = "Scale one of them with Upscale Image, or crop it."
        raise NodeError(NODE, "edited", f"the pictures must have one size{got}", remedy)
    if 1 not in (len(source), len(edited)) and len(source) != len(edited):
        problem = f"both batches must be of one length, or one of them a single picture{got}"
        raise NodeError(NODE, "edited", problem, "Take as many of each.")
    if min(source.shape[1:3]) < SMALLEST:
        problem = f"SSIM needs {SMALLEST} pixels or more a side; got {sizes[0]}."
        raise NodeError(NODE, "source", problem, "Give larger pictures.")
    pictures, others = torch.broadcast_tensors(source[..., :3], edited[..., :3])
    return pictures.movedim(-1, 1), others.movedim(-1, 1)


def _mask(mask: Tensor, shape: torch.Size) -> Tensor:
    """A MASK as (1 or N, 1, H, W) for pictures (N, 3, H, W)."""
    count, _, height, width = shape
    mask = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    if len(mask) not in (1, count):
        problem = f"it must be one mask or one for each of the {count} pictures; got {len(mask)}."
        raise NodeError(NODE, "mask", problem, "Take as many masks as pictures.")
    mask = comfy.utils.common_upscale(mask, width, height, "bilinear", "disabled").clamp(0, 1)
    if (mask.sum((1, 2, 3)) == 0).any():
        problem = f"it is empty (all zeros, {width} x {height}), so there is nothing to measure."
        raise NodeError(NODE, "mask", problem, "Draw a region, or take the mask away.")
    return mask


def _line(name: str, values: Tensor, form: str, unit: str = "") -> str:
    def say(value: float) -> str:
        return "identical" if value == float("inf") else f"{value:{form}}{unit}"

    mean, low, high = (say(value.item()) for value in (values.mean(), values.min(), values.max()))
    return f"{name}: {mean}" + (f" ({low} to {high}, {len(values)} pictures)" if len(values) > 1 else "")


def _lpips(source: Tensor, edited: Tensor, mask: Tensor | None) -> str:
    """Outside the mask both pictures are black, as PIE-Bench measures it."""
    try:
        distance = load_lpips()
    except Unavailable as error:
        return f"LPIPS: not measured ({error})"
    if mask is not None:
        source, edited = source * mask, edited * mask
    return _line("LPIPS", torch.tensor([distance(a[None], b[None]) for a, b in zip(source, edited)]), ".4f")


def _image_similarity(clip_vision, source: Tensor, edited: Tensor) -> Tensor:
    """Cosine of the image embeddings of pictures (N, 3, H, W)."""
    embeddings = [
        clip_vision.encode_image(pictures.movedim(1, -1))["image_embeds"].float().flatten(1)
        for pictures in (source, edited)
    ]
    return torch.cosine_similarity(*embeddings)


NODES = [EditMetrics]
