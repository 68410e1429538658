"""Pictures in and out of tensors (B, 3, H, W) in [0, 1], and labelled sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

BACKGROUND = "white"  # what lies behind a picture that is transparent
MOST_RATIO = 8  # of the longer to the shorter side
MOST_PIXELS = 2**24  # of a scaled picture: 4096 x 4096
WIDE = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's grey with more than 8 bits; it converts none of them


def load_picture(path: str | Path, side: int, multiple: int) -> Tensor:
    """A picture file as (1, 3, H, W): shorter side scaled to ``side``, then both cut at the centre
    to multiples of ``multiple``.

    What is transparent gets the colour ``BACKGROUND``. Raises FileNotFoundError, or ValueError for
    a file that is not a picture, or one that is too large or too narrow.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            scale = side / min(file.size)
            _check_size(path, file.size, scale)
            picture = _opaque(ImageOps.exif_transpose(file))
    except (FileNotFoundError, ValueError):
        raise
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{path} must be a picture that Pillow can read.") from error
    except Exception as error:  # Pillow raises many kinds for foreign files, and its own for huge ones
        raise ValueError(f"{path} must be a picture that Pillow can read; reading it failed: {error}") from error
    width, height = (max(multiple, round(n * scale) // multiple * multiple) for n in picture.size)
    picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return from_image(picture)[None]


def _check_size(path: str | Path, size: tuple[int, int], scale: float) -> None:
    if max(size) > MOST_RATIO * min(size):
        rule = f"the longer side may be {MOST_RATIO} times the shorter one: cut it"
        raise ValueError(f"{path} has {size[0]} x {size[1]} pixels; {rule}.")
    width, height = (round(n * scale) for n in size)
    if width * height > MOST_PIXELS:
        rule = f"more than {MOST_PIXELS / 1e6:.1f} million pixels: take a smaller side, or cut the picture"
        raise ValueError(f"{path} would be scaled to {width} x {height}, {rule}.")


def _opaque(picture):
    """A ``PIL.Image`` of any mode as RGB. Raises ValueError for values whose range is not known."""
    from PIL import Image

    if picture.mode in WIDE:
        return Image.fromarray(_grey(picture)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    ground = Image.new("RGBA", picture.size, BACKGROUND)
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def _grey(picture) -> np.ndarray:
    """Grey of more than 8 bits, (H, W), in 8 bits: 16 whole ones, or floats in [0, 1]."""
    values = np.asarray(picture)
    most = 1.0 if picture.mode == "F" else 65535.0
    low, high = values.min(), values.max()
    if not (0 <= low and high <= most):  # NaN too
        rule = f"grey in the mode {picture.mode} must lie in [0, {most:g}]"
        raise ValueError(f"{rule}; got values from {low:g} to {high:g}: save the picture with 8 or 16 bits.")
    return (values * (255 / most)).round().astype(np.uint8)


def from_image(image) -> Tensor:
    """A ``PIL.Image`` in RGB, or pixels such as its (H, W, 3 or 4) in 8 bits, as (3 or 4, H, W) in
    [0, 1]."""
    return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 255


def to_image(picture: Tensor):
    """(3, H, W) in [0, 1] as a ``PIL.Image``."""
    from PIL import Image

    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def kept_in_grey(pictures: Tensor, mask: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) as they are where the mask (N, 1, H, W) is 1, and in dark grey where it
    is 0."""
    grey = pictures.mean(1, keepdim=True) / 2
    return grey + mask.to(pictures) * (pictures - grey)


def save_picture(image, path: Path) -> None:
    """Write a ``PIL.Image`` in the format of the path's ending; the file is there whole or not at
    all, and what was there before stays until then."""
    from PIL import Image

    part = path.with_name(f"{path.stem[:48]}-{uuid4().hex}.part")  # two may write one picture: a killed run's worker
    try:
        image.save(part, format=Image.registered_extensions()[path.suffix.lower()])
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


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
