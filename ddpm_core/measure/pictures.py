"""Pictures in and out of tensors (B, 3, H, W) in [0, 1], and labelled sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def load_picture(path: str | Path, side: int, multiple: int) -> Tensor:
    """A picture file as (1, 3, H, W): shorter side scaled to ``side``, then both cut at the centre
    to multiples of ``multiple``.

    Raises FileNotFoundError, or ValueError for a file that is not a picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} must be a picture that Pillow can read.") from error
    scale = side / min(picture.size)
    width, height = (max(multiple, round(n * scale) // multiple * multiple) for n in picture.size)
    picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def to_image(picture: Tensor):
    """(3, H, W) in [0, 1] as a ``PIL.Image``."""
    from PIL import Image

    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def kept_in_grey(pictures: Tensor, mask: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) as they are where the mask (N, 1, H, W) is 1, and in dark grey where it
    is 0."""
    grey = pictures.mean(1, keepdim=True) / 2
    return grey + mask.to(pictures) * (pictures - grey)


def labelled_grid(rows: Sequence[Sequence[tuple[str, Tensor]]], side: int = 256):
    """Pictures (3, H, W) in rows and columns, each with its label below, as a ``PIL.Image``; a
    label may be empty or have several lines.

    Every picture is scaled to fit a square of ``side`` pixels.
    """
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    gap, font = 12, ImageFont.load_default(15)
    lines = [max((label.count("\n") + 1 if label else 0) for label, _ in row) for row in rows]
    heights = [side + gap + (20 * n + 16 if n else 0) for n in lines]
    sheet = Image.new("RGB", (max(map(len, rows)) * (side + gap) + gap, sum(heights) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    top = gap
    for row, height in zip(rows, heights):
        for i, (label, picture) in enumerate(row):
            left = gap + i * (side + gap)
            sheet.paste(ImageOps.pad(to_image(picture), (side, side), Image.Resampling.BICUBIC, "white"), (left, top))
            draw.multiline_text(
                (left + side / 2, top + side + 8),
                label,
                fill="black",
                font=font,
                anchor="ma",
                align="center",
                spacing=5,
            )
        top += height
    return sheet
