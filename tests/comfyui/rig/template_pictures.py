"""Draws the pictures of the templates, into example_workflows: square, one idea each.

    python -m tests.comfyui.rig.template_pictures                     # all of them
    python -m tests.comfyui.rig.template_pictures "Shift a picture"   # one

With the demo model at the templates' own settings, through the functions that the nodes call. Those
of templates that need a model to be downloaded are cards with words: no picture of theirs can be
made here.
"""

import argparse
import dataclasses

import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from ddpm_core import mix, paint, parse_color, push_color, shift
from ddpm_core.demo import scenes
from ddpm_core.edits.scale import scale
from ddpm_core.measure.pictures import to_image
from ddpm_core.measure.plots import figure_picture, statistics_figure
from ddpm_core.measure.stats import statistics
from tests.comfyui.rig.help_pictures import (
    CIRCLE,
    HEART,
    RING,
    STAR,
    attended,
    directed,
    edit,
    edit_by_itself,
    maps_of,
    mask_page,
    picture,
    pipeline,
    scene,
    several_page,
    words,
)
from tests.comfyui.rig.server import PACK

FOLDER = PACK / "example_workflows"
SIDE, INSET, EDGE = 400, 120, 5


def one(maps, prompt, guidance=3):
    return edit(maps, prompt, guidance=guidance)[0]


def square(tensor, side=SIDE):
    return to_image(tensor).resize((side, side), Image.Resampling.LANCZOS)


def inset(large, *small):
    """The result, and what it was made of as little pictures, above or below: where less has
    changed."""
    sheet, changed = square(large), (large - small[0]).abs().mean((0, 2))
    is_below = changed[: len(changed) // 2].sum() > changed[len(changed) // 2 :].sum()
    top = SIDE - INSET - 2 * EDGE - 12 if is_below else 12
    for i, tensor in enumerate(small):
        little = ImageOps.expand(square(tensor, INSET), EDGE, "white")
        sheet.paste(little, (12 + i * (INSET + 2 * EDGE + 12), top))
    return sheet


def tiles(*tensors, columns=2):
    """Pictures in rows, without words."""
    side = SIDE // columns
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    for i, tensor in enumerate(tensors):
        sheet.paste(square(tensor, side - EDGE), (i % columns * side + EDGE // 2, i // columns * side + EDGE // 2))
    return sheet


def split(left, right):
    """One picture whose right half is another: where they are alike nothing is seen of it."""
    sheet = square(left)
    sheet.paste(square(right).crop((SIDE // 2, 0, SIDE, SIDE)), (SIDE // 2, 0))
    ImageDraw.Draw(sheet).line((SIDE // 2, 0, SIDE // 2, SIDE), "white", EDGE)
    return sheet


def card(*lines):
    """Words on a scene out of focus."""
    sheet = square(picture(STAR)).filter(ImageFilter.GaussianBlur(24))
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        font = ImageFont.load_default(52 if i == 0 else 30)
        draw.text((SIDE / 2, 150 + 60 * i), line, "white", font, "mm", stroke_width=2, stroke_fill="black")
    return sheet


def text():
    maps = maps_of(STAR)
    changes = ({"color": "green"}, {"shape": "heart"}, {"background": "yellow"})
    return tiles(picture(STAR), *(one(maps, words(STAR, **change)) for change in changes))


def fast():
    return inset(one(maps_of(HEART, steps=10, skip=4), words(HEART, color="yellow")), picture(HEART))


def choose():
    maps = maps_of(STAR, steps=20, skip=0)
    cells = [(skip, guidance) for skip in (0, 4, 11) for guidance in (1.5, 3, 6)]
    edits = (one(maps.skip(skip), words(STAR, color="green"), guidance) for skip, guidance in cells)
    return tiles(*edits, columns=3)


def mask():
    cover = torch.nn.functional.max_pool2d(scenes.coverage([CIRCLE]), 33, 1, 16)
    region = torch.nn.functional.interpolate(cover, scale_factor=1 / pipeline().cell, mode="area")
    maps, changed = maps_of(CIRCLE, skip=9), words(CIRCLE, shape="star", fill="plain", color="green")
    inside = one(dataclasses.replace(maps, mask=region), changed, 4)
    return inset(inside, picture(CIRCLE), one(maps, changed, 4))


def shifted():
    return inset(one(shift(maps_of(RING, skip=0), -4, 0), words(RING), 1), picture(RING))


def colour():
    drawn = scene(7, "heart striped red yellow")
    cover, maps = scenes.coverage([drawn]), maps_of(drawn, skip=25, prompt="")
    region = torch.nn.functional.interpolate(cover, scale_factor=1 / pipeline().cell, mode="area")
    seen = picture(drawn).movedim(0, -1)[None]
    coat = paint(seen, cover.movedim(1, -1), parse_color("#219e38"), keep_lights=True)
    pushed = push_color(maps, pipeline().encode(coat.movedim(-1, 1)), region, strength=0.5)
    return inset(one(pushed, "", 1), picture(drawn))


def freedom():
    maps, moon = maps_of(STAR, skip=9), words(STAR, shape="moon", background="green")
    return tiles(picture(STAR), *(one(scale(maps, share, seed=3), moon) for share in (1, 0.8, 0.5)))


def mixed():
    heart = scene(5, "heart plain green yellow")
    maps, other = (maps_of(drawn, steps=20, skip=0) for drawn in (heart, STAR))
    cover = torch.nn.functional.max_pool2d(scenes.coverage([STAR]), 17, 1, 8)
    region = torch.nn.functional.interpolate(cover, scale_factor=1 / pipeline().cell, mode="area")
    both = mix(maps, other, 1, mask=region)
    return inset(one(both, words(STAR, background="yellow"), 1), picture(STAR), picture(heart))


def kept():
    return inset(one(maps_of(HEART), words(HEART, background="orange")), picture(HEART))


def stock():
    return inset(one(maps_of(RING), words(RING, color="red")), picture(RING))


def given_back():
    return split(picture(CIRCLE), one(maps_of(CIRCLE), words(CIRCLE), 1))


def measured():
    maps = maps_of(HEART)
    plain, edited = pipeline().decode(maps.latents[-1])[0], one(maps, words(HEART, color="yellow"))
    return inset(((plain - edited).abs() * 4).clamp(0, 1), picture(HEART), edited)


def look():
    found = {name: statistics(maps_of(STAR, skip=0, inversion=name)) for name in ("edit-friendly", "native")}
    return ImageOps.pad(to_image(figure_picture(statistics_figure(found))), (SIDE, SIDE), color="white")


def one_word():
    _, changed = attended("dotted", STAR, words(STAR, fill="dotted"), skip=6)
    return inset(changed, picture(STAR))


def along_a_direction():
    return inset(directed("heart", STAR, "demo, star to heart")[1], picture(STAR))


def by_itself():
    return inset(edit_by_itself(STAR, color="green"), picture(STAR), mask_page()[0][1][1])


def several():
    return tiles(*(panel for _, panel in several_page()[0]))


def many():
    changes = (
        (STAR, {"color": "green"}),
        (HEART, {"color": "yellow"}),
        (RING, {"color": "red"}),
        (CIRCLE, {"background": "green"}),
    )
    return tiles(*(one(maps_of(drawn), words(drawn, **change)) for drawn, change in changes))


PICTURES = {
    "Edit a picture by text": text,
    "Edit a picture by text (fast)": fast,
    "Choose skip and guidance": choose,
    "Edit by text, the mask by itself": by_itself,
    "Several edits at once": several,
    "Edit many pictures": many,
    "Edit inside a mask": mask,
    "Shift a picture": shifted,
    "Push a colour into a region": colour,
    "More freedom": freedom,
    "Mix two pictures": mixed,
    "Keep noise maps for another day": kept,
    "Edit with SamplerCustomAdvanced": stock,
    "Reconstruct a picture": given_back,
    "Measure an edit": measured,
    "What the noise maps look like": look,
    "Change one word": one_word,
    "From cat to dog, a direction": along_a_direction,
}
# What stands on the card of a template whose model is not here.
CARDS = {
    "Edit a picture (app)": ("App", "your picture,", "no wires"),
    "Edit by text (SD 1.5)": ("SD 1.5", "your own picture"),
    "Edit by text (SDXL)": ("SDXL", "your own picture"),
}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tests.comfyui.rig.template_pictures", description="Draw the pictures of the templates."
    )
    parser.add_argument("templates", nargs="*", help="names of templates; default: all that have a picture here")
    options = parser.parse_args(arguments)
    unknown = set(options.templates) - set(PICTURES) - set(CARDS)
    if unknown:
        parser.error(f"no such picture: {', '.join(sorted(unknown))}")
    for name in options.templates or [*PICTURES, *CARDS]:
        sheet = card(*CARDS[name]) if name in CARDS else PICTURES[name]()
        path = FOLDER / f"{name}.jpg"
        sheet.save(path, quality=86, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
