"""Draws the pictures of the help pages, and measures what half precision costs in a file of noise
maps.

    python -m tests.comfyui.rig.help_pictures              # all pictures, into web/docs
    python -m tests.comfyui.rig.help_pictures ShiftNoise   # the picture of one page
    python -m tests.comfyui.rig.help_pictures --half       # the numbers on SaveNoiseMaps's page

All of it with the demo model, at fixed seeds, through the functions that the nodes call.
"""

import argparse
import dataclasses
import tempfile
from functools import cache
from pathlib import Path

import torch
from PIL import Image

from ddpm_core import NoiseMaps, Plan, flip, mix, paint, parse_color, push_color, replay, shift
from ddpm_core.attention.local_blend import Blending, LocalBlend
from ddpm_core.attention.masactrl import Mutual
from ddpm_core.attention.pix2pix_zero import sentences
from ddpm_core.attention.prompt_to_prompt import Control
from ddpm_core.attention.words import align
from ddpm_core.demo import scenes
from ddpm_core.demo.model import FOLDER
from ddpm_core.edits.scale import scale
from ddpm_core.inversions.choice import invert_by
from ddpm_core.lab.editing import WIDE, Mode, mask_for
from ddpm_core.measure.metrics import psnr
from ddpm_core.measure.pictures import kept_in_grey, labelled_grid, to_image
from ddpm_core.measure.plots import figure_picture, statistics_figure
from ddpm_core.measure.stats import statistics
from ddpm_core.models.attention import controlled
from ddpm_core.models.stable_diffusion import Edit, Pipeline
from ddpm_core.regions import difference, mask_of

DOCS = Path(__file__).resolve().parents[3] / "web" / "docs"
DIRECTIONS = DOCS.parents[1] / "nodes" / "directions"
STEPS, SKIP, GUIDANCE = 50, 18, 3.0
SIDE = 120  # so that labels can be read in the help panel as narrow as it opens


def scene(layout, words):
    shape, fill, color, background = words.split()
    return scenes.scene_with(layout, shape=shape, fill=fill, color=color, background=background)


STAR = scene(12, "star striped red blue")
CIRCLE = scene(4, "circle dotted orange purple")
HEART = scene(7, "heart plain pink teal")
RING = scene(9, "ring plain yellow green")


@cache
def pipeline():
    return Pipeline.load(FOLDER)


def picture(drawn):
    return scenes.render([drawn])[0]


def words(drawn, **changes):
    """The caption of a scene with some of its attributes changed."""
    return scenes.caption(dataclasses.replace(drawn, **changes))


@cache
def maps_of(*drawn, steps=STEPS, skip=SKIP, prompt=None, inversion="edit-friendly"):
    pipe = pipeline()
    denoise = pipe.denoiser([words(one) if prompt is None else prompt for one in drawn], guidance=1)
    return invert_by(inversion, denoise, pipe.encode(scenes.render(drawn)), Plan(pipe.sigmas(steps), skip=skip))


def edit(maps, *prompts, guidance=GUIDANCE):
    """Edited pictures (B, 3, H, W), a prompt for each."""
    return pipeline().decode(replay(pipeline().denoiser(list(prompts), guidance=guidance), maps))


def mask_by_itself(drawn, prompt):
    """Where a prompt changes a scene, at the templates' settings."""
    return mask_for(Mode(GUIDANCE, 1, **WIDE), pipeline(), maps_of(drawn), words(drawn), prompt)


def edit_by_itself(drawn, **changes):
    """The edit of a scene in that mask, (3, H, W)."""
    maps, prompt = maps_of(drawn), words(drawn, **changes)
    return edit(dataclasses.replace(maps, mask=mask_by_itself(drawn, prompt)), prompt)[0]


def panel(label, maps, prompt, guidance=GUIDANCE):
    return label, edit(maps, prompt, guidance=guidance)[0]


def source(drawn, label="source"):
    return label, picture(drawn)


def given_back(drawn):
    return panel("given back", maps_of(drawn), words(drawn), 1)


def invert_page():
    return [
        [source(CIRCLE), given_back(CIRCLE), panel('edit: "striped"', maps_of(CIRCLE), words(CIRCLE, fill="striped"))]
    ]


def advanced_page():
    return [[source(HEART), given_back(HEART), panel('edit: "star"', maps_of(HEART), words(HEART, shape="star"))]]


def edit_page():
    maps, green = maps_of(STAR), words(STAR, color="green")
    good = [panel('"green"', maps, green), panel('"heart"', maps, words(STAR, shape="heart"))]
    return [
        [source(STAR), *good],
        [
            panel('"yellow\nbackground"', maps, words(STAR, background="yellow")),
            panel("too weak:\nskip 40", maps.skip(40), green),
            panel("lost:\nskip 0, cfg 8", maps_of(STAR, skip=0), green, 8),
        ],
    ]


def attended(label, drawn, target, skip=SKIP, control=True, mutual=None, blend=()):
    """An edit that takes over attention of the source."""
    pipe, maps = pipeline(), maps_of(drawn, skip=skip)
    pair = align(pipe.tokens(words(drawn)), pipe.tokens(target))
    control = Control(pair) if control else None
    plane = tuple(maps.latents.shape[-2:])
    blending = Blending(LocalBlend(pair, blend), len(maps.residuals), plane) if blend else None
    options = {"control": control, "mutual": mutual, "blending": blending, "guidance": GUIDANCE}
    denoise = controlled(pipe, maps, words(drawn), target, **options)
    return label, pipe.decode(replay(denoise, maps, local=blending and blending.mask))[0]


def prompt_to_prompt_page():
    heart, dotted = words(STAR, shape="heart", color="green"), words(STAR, fill="dotted")
    free = maps_of(STAR, skip=6)
    return [
        [source(STAR), panel('"dotted",\nskip 6', free, dotted), panel('"green heart",\nskip 6', free, heart)],
        [
            ("skip 6 and\nPrompt-to-Prompt:", picture(STAR)),
            attended('"dotted"', STAR, dotted, skip=6),
            attended('"green heart",\nlocal blend', STAR, heart, skip=6, blend=("star", "heart")),
        ],
    ]


def mutual_page():
    heart = words(STAR, shape="heart")
    plain = panel('"heart", skip 6', maps_of(STAR, skip=6), heart)
    taken = attended("and mutual\nself-attention", STAR, heart, skip=6, control=False, mutual=Mutual())
    return [[source(STAR), plain, taken]]


def directed(label, drawn, name):
    """An edit along a ready direction, guided from the source."""
    pipe, maps = pipeline(), maps_of(drawn, skip=12)
    moved = pipe.moved(words(drawn), *sentences((DIRECTIONS / f"{name}.txt").read_text("utf-8")))
    denoise = pipe.denoiser_from_source(words(drawn), moved, guidance=GUIDANCE, source_guidance=1.0)
    return label, pipe.decode(replay(denoise, maps))[0]


def direction_page():
    ready = ("star to heart", "red to green")
    return [[source(STAR), *(directed(label, STAR, f"demo, {label}") for label in ready)]]


def sampler_page():
    return [
        [
            source(RING),
            panel('"red"', maps_of(RING), words(RING, color="red")),
            panel('"heart"', maps_of(RING), words(RING, shape="heart")),
        ]
    ]


def several_page():
    maps, pipe = maps_of(STAR), pipeline()
    labels = {"color": '"green star"', "background": '"yellow\nbackground"'}
    edits = {}
    for name, value in (("color", "green"), ("background", "yellow")):
        prompt = words(STAR, **{name: value})
        edits[name] = Edit(prompt, GUIDANCE, mask_by_itself(STAR, prompt))
    panels = []
    for label, chosen in ((labels["color"], ["color"]), (labels["background"], ["background"]), ("both", list(edits))):
        masks = torch.cat([edits[name].mask for name in chosen]).amax(0, keepdim=True)
        denoise = pipe.denoiser_of_edits(words(STAR), [edits[name] for name in chosen], source_guidance=1)
        panels.append((label, pipe.decode(replay(denoise, maps, mask=masks))[0]))
    return [[source(STAR), *panels]]


def guider_page():
    maps, pipe = maps_of(RING), pipeline()
    panels = []
    for label, prompt in (('"red"', words(RING, color="red")), ('"heart"', words(RING, shape="heart"))):
        denoise = pipe.denoiser_from_source(words(RING), prompt, guidance=4, source_guidance=1)
        panels.append((label, pipe.decode(replay(denoise, maps))[0]))
    return [[source(RING), *panels]]


def mask_page():
    maps, plain = maps_of(STAR), pipeline().decode(maps_of(STAR).latents[-1])
    panels = []
    for label, prompt in (
        ('"green star"', words(STAR, color="green")),
        ('"yellow\nbackground"', words(STAR, background="yellow")),
    ):
        mask = mask_of(difference(pipeline().denoiser(prompt, guidance=1), maps))
        wide = torch.nn.functional.interpolate(mask, scale_factor=pipeline().cell, mode="bilinear")
        panels.append((label, kept_in_grey(plain, wide)[0]))
    return [[source(STAR), *panels]]


def grid_page():
    maps = maps_of(STAR, skip=9)
    cells = [
        [panel(f"skip {skip}, cfg {cfg:g}", maps.skip(skip), words(STAR, color="green"), cfg) for cfg in (1.5, 3, 6)]
        for skip in (9, 18, 36)
    ]
    return [[source(STAR)], *cells]


def shift_page():
    maps = maps_of(STAR, skip=0)
    return [[source(STAR), *(panel(f"x {x}, y {y}", shift(maps, x, y), words(STAR), 1) for x, y in ((-4, 0), (-4, 3)))]]


def color_page():
    cover, maps = scenes.coverage([STAR]), maps_of(STAR, skip=25, prompt="")
    mask = torch.nn.functional.interpolate(cover, scale_factor=1 / pipeline().cell, mode="area")
    panels = []
    for shading in ("keep lights and darks", "flat"):
        painted = paint(
            picture(STAR).movedim(0, -1)[None],
            cover.movedim(1, -1),
            parse_color("#219e38"),
            keep_lights=shading != "flat",
        )
        pushed = push_color(maps, pipeline().encode(painted.movedim(-1, 1)), mask, strength=0.5)
        panels.append(panel("green, " + shading.replace("keep ", "keep\n"), pushed, "", 1))
    return [[source(STAR), *panels]]


def mix_page():
    maps, other, star = maps_of(HEART), maps_of(STAR), words(STAR)
    mask = torch.nn.functional.max_pool2d(
        scenes.coverage([STAR]), 24, 8, 8
    ).ceil()  # the star with a border of a latent cell
    wide = torch.nn.functional.interpolate(mask, scale_factor=8)[0].expand(3, -1, -1)
    return [
        [source(HEART, "noise_maps"), source(STAR, "other_maps"), ("mask", wide)],
        [
            panel("amount 1, mask", mix(maps, other, 1, mask=mask), words(STAR, background="teal")),
            panel("amount 0.5", mix(maps, other, 0.5), star),
            panel("amount 1,\nstart 60, end 0", mix(maps, other, 1, start=60), star),
        ],
    ]


def flip_page():
    return [
        [
            source(CIRCLE),
            *(
                panel(direction, flip(maps_of(CIRCLE), direction), words(CIRCLE), 1)
                for direction in ("left-right", "upside down")
            ),
        ]
    ]


def scale_page():
    maps, moon = maps_of(STAR, skip=9), words(STAR, shape="moon", background="green")
    panels = [panel(f"scale {share:g}", scale(maps, share, seed=3), moon) for share in (1, 0.8, 0.6, 0.3, 0)]
    return [[source(STAR), *panels[:2]], panels[2:]]


def save_page():
    maps = maps_of(STAR)
    changed = words(STAR, shape="heart")
    return [
        [source(STAR), panel("edit, full", maps, changed), panel("edit, half", _stored(maps, half=True)[0], changed)]
    ]


def load_page():
    maps, later = maps_of(HEART), {"yellow": words(HEART, color="yellow"), "dotted": words(HEART, fill="dotted")}
    return [
        [source(HEART, "inverted once"), *(panel(f'later: "{word}"', maps, prompt) for word, prompt in later.items())]
    ]


def stats_page():
    found = {name: statistics(maps_of(STAR, skip=0, inversion=name)) for name in ("edit-friendly", "native")}
    figure = to_image(figure_picture(statistics_figure(found)))
    return figure.resize((640, 640 * figure.height // figure.width), Image.Resampling.LANCZOS)


def metrics_page():
    maps = maps_of(HEART)
    plain, edited = pipeline().decode(maps.latents[-1]), edit(maps, words(HEART, color="yellow"))
    difference = ((plain - edited).abs() * 4).clamp(0, 1)
    return [
        [
            ("source", plain[0]),
            (f"edited: {psnr(plain, edited).item():.1f} dB", edited[0]),
            ("difference, gain 4", difference[0]),
        ]
    ]


def model_page():
    """At scale 0 nothing is left of the picture: this is plain sampling from a caption."""
    captions = [
        "a plain yellow heart on a purple background",
        "a plain teal moon on an orange background",
        "a striped pink ring on a green background",
    ]
    noise = [scale(maps_of(STAR, skip=0), 0, seed=seed) for seed in range(len(captions))]
    return [
        [
            panel(prompt.replace(" on ", "\non ").replace(" back", "\nback"), maps, prompt, 5)
            for prompt, maps in zip(captions, noise)
        ]
    ]


def scene_page():
    heart, dotted = dataclasses.replace(STAR, shape="heart"), dataclasses.replace(STAR, fill="dotted")
    return [
        [
            source(STAR, "star, striped,\nred, blue"),
            source(heart, "heart,\nthe same layout"),
            source(dotted, "dotted,\nthe same layout"),
        ]
    ]


def _stored(maps, half):
    """The maps as a file gives them back, and its size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "maps.safetensors"
        maps.save(path, half=half)
        return NoiseMaps.load(path), path.stat().st_size


def say_half(steps, skip, drawn=(STAR, CIRCLE, HEART, RING)):
    """Print what half precision costs: the picture given back, and an edit, against the same from
    maps in full precision."""
    maps = maps_of(*drawn, steps=steps, skip=skip)
    (full, size), (half, small) = (_stored(maps, half=half) for half in (False, True))
    plain, values = pipeline().decode(maps.latents[-1]), maps.latents[0].numel()
    sizes = f"{size / 1e6:.2f} MB full, {small / 1e6:.2f} MB half ({small / size:.3f})"
    a_value, small_a_value = (taken / values / (steps - skip) for taken in (size, small))
    print(f"{steps} steps, skip {skip}, {len(drawn)} pictures: {sizes}")
    print(f"  bytes a step and latent value: {a_value:.1f} full, {small_a_value:.1f} half")
    captions, changed = [words(one) for one in drawn], [words(one, color="blue", background="orange") for one in drawn]
    _compare("given back, full against the autoencoder's own", edit(full, *captions, guidance=1), plain)
    _compare("given back, half against full", edit(half, *captions, guidance=1), plain)
    _compare("edited, half against full", edit(half, *changed), edit(full, *changed))


def _compare(what, pictures, others):
    error = 255 * (pictures - others).abs()
    ratios = ", ".join(f"{ratio:.1f}" for ratio in psnr(pictures, others).tolist())
    print(f"  {what}: PSNR {ratios} dB; mean error {error.mean():.3f}, greatest {error.max():.2f} of 255")


PAGES = {
    "EditFriendlyInvert": invert_page,
    "EditFriendlyInvertAdvanced": advanced_page,
    "NoiseMapEdit": edit_page,
    "NoiseMapSampler": sampler_page,
    "AddEdit": several_page,
    "EditGuider": guider_page,
    "MaskFromPrompts": mask_page,
    "PromptToPrompt": prompt_to_prompt_page,
    "MutualSelfAttention": mutual_page,
    "EditDirection": direction_page,
    "EditGrid": grid_page,
    "ShiftNoise": shift_page,
    "ColorMaskEdit": color_page,
    "MixNoiseMaps": mix_page,
    "FlipNoiseMaps": flip_page,
    "ScaleNoiseMaps": scale_page,
    "SaveNoiseMaps": save_page,
    "LoadNoiseMaps": load_page,
    "NoiseMapStats": stats_page,
    "EditMetrics": metrics_page,
    "LoadDemoModel": model_page,
    "DrawDemoScene": scene_page,
}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tests.comfyui.rig.help_pictures", description="Draw the pictures of the help pages."
    )
    parser.add_argument("pages", nargs="*", help=f"node ids; default: all of {', '.join(PAGES)}")
    parser.add_argument("--half", action="store_true", help="print what half precision costs, and draw nothing")
    options = parser.parse_args(arguments)
    unknown = set(options.pages) - set(PAGES)
    if unknown:
        parser.error(f"no such page: {', '.join(sorted(unknown))}")
    if options.half:
        for steps, skip in ((50, 18), (100, 36)):
            say_half(steps, skip)
        return
    for name in options.pages or PAGES:
        path = DOCS / f"{name}.jpg"
        page = PAGES[name]()
        sheet = labelled_grid(page, SIDE) if isinstance(page, list) else page
        sheet.save(path, quality=84, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
