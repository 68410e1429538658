"""Pictures in and out of tensors (B, 3, H, W) in [0, 1], and labelled rows of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def load_picture(path: str | Path, side: int, multiple: int) -> Tensor:
    """A picture file as (1, 3, H, W): shorter side scaled to ``side``, then both cut at the centre to multiples of ``multiple``.

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


def labelled_row(panels: Sequence[tuple[str, Tensor]], side: int = 256):
    """Pictures (3, H, W) side by side, each with its label below, as a ``PIL.Image``; a label may have several lines."""
    from PIL import Image, ImageDraw, ImageFont

    gap, font = 12, ImageFont.load_default(15)
    lines = max(label.count("\n") + 1 for label, _ in panels)
    sheet = Image.new("RGB", (len(panels) * (side + gap) + gap, side + 2 * gap + 20 * lines + 4), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (label, picture) in enumerate(panels):
        left = gap + i * (side + gap)
        sheet.paste(to_image(picture).resize((side, side), Image.Resampling.BICUBIC), (left, gap))
        draw.multiline_text((left + side / 2, side + gap + 8), label, fill="black", font=font, anchor="ma", align="center", spacing=5)
    return sheet
