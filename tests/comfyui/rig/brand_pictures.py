"""Draws the banner and the icon of the pack, into docs.

    python -m tests.comfyui.rig.brand_pictures

One drawn scene and twelve edits of it, each only where its prompt differs, as in the template "Edit a
picture by text".
"""

import torch
from PIL import Image, ImageDraw

from ddpm_core.demo import scenes
from ddpm_core.measure.pictures import to_image
from tests.comfyui.rig.help_pictures import STAR, edit_by_itself, scene
from tests.comfyui.rig.server import PACK

DOCS = PACK / "docs"
SIDE, EDGE = 420, 6  # pixels of the banner's source, and between its pictures
TILE = SIDE // 3 - EDGE, (SIDE - 2 * EDGE) // 3  # of an edit: four columns, three rows, 21 to 9 in all
EDITS = [
    *({"color": color} for color in ("orange", "yellow", "green", "teal")),
    *({"background": background} for background in ("yellow", "pink", "purple", "teal")),
    *({"shape": shape} for shape in ("heart", "circle", "ring")),
    {"fill": "plain"},
]
ICON, HEART = 400, scene(12, "heart striped red blue")


def banner():
    sheet = Image.new("RGB", (SIDE * 21 // 9, SIDE), "white")
    sheet.paste(to_image(scenes.render([STAR], SIDE)[0]), (0, 0))
    for i, changes in enumerate(EDITS):
        small = to_image(edit_by_itself(STAR, **changes)).resize(TILE, Image.Resampling.LANCZOS)
        sheet.paste(small, (SIDE + EDGE + i % 4 * (TILE[0] + EDGE), i // 4 * (TILE[1] + EDGE)))
    return sheet


def icon():
    """The source left of a slanted line, the edit right of it."""
    size = (ICON, ICON)
    span = min(1.0, 2.6 * HEART.radius)
    left, top = (min(max(c - span / 2, 0), 1 - span) for c in (HEART.x, HEART.y))
    source = to_image(scenes.render([HEART], ICON, [(left, top)], span)[0])
    other = to_image(edit_by_itself(HEART, color="yellow"))
    box = [round(scenes.SIZE * c) for c in (left, top, left + span, top + span)]
    other = other.crop(box).resize(size, Image.Resampling.LANCZOS)
    line = [(0.66 * ICON, -9), (0.34 * ICON, ICON + 9)]
    half, corners = Image.new("L", size), Image.new("L", size)
    ImageDraw.Draw(half).polygon([*line, (ICON, ICON), (ICON, 0)], 255)
    source.paste(other, mask=half)
    ImageDraw.Draw(source).line(line, "white", 8)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, ICON - 1, ICON - 1), 56, 255)
    source.putalpha(corners)
    return source


def main():
    with torch.inference_mode():
        for name, picture in (("banner", banner()), ("icon", icon())):
            # A third of the tones, which nobody sees: two thirds of the bytes.
            coarser = picture.point(lambda value: value if value == 255 else value // 3 * 3)
            coarser.save(DOCS / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
