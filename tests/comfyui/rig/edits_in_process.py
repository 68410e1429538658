"""Run with ComfyUI's Python, in ComfyUI's folder: what the model is asked for by the nodes that
read masks off noise maps and make several edits at once, and their numbers.

Usage: edits_in_process.py PACK OUT.safetensors. The file's tensors are numbers, its metadata texts.
"""

import json
from contextlib import contextmanager

from comfyui_process import arguments, led_from_the_negative, load_pack

# isort: split
import comfy.controlnet
import comfy.samplers
import torch
from safetensors.torch import save_file

pack_folder, wanted = arguments
SETTINGS = {"steps": 12, "skip": 4, "eta": 1.0, "solver": "first_order", "scheduler": "ddim_uniform", "seed": 0}
MASK = {"threshold": 0.4, "softness": 0.4, "grow": 0, "start": 100.0, "end": 0.0, "cfg": -1.0}
TERM = {"strength": 5.0, "auto_mask": True, "threshold": 0.4, "start": 100.0, "end": 0.0}


@contextmanager
def counted(model):
    """How many samples each call of the model has."""
    sizes = []
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


class Control(comfy.controlnet.ControlBase):
    """A ControlNet that adds a number."""

    def pre_run(self, model, percent_to_timestep_function):
        pass

    def copy(self):
        return self

    def get_models(self):
        return []

    def get_control(self, x, t, cond, batched_number, transformer_options=None):
        return {"middle": [x.new_full((len(x), 1, 1, 1), 3.0)], "output": [], "input": []}


def with_entries(prompt, **entries):
    return [[embedding, {**entry, **entries}] for embedding, entry in prompt]


def in_pairs(arguments):
    """As ComfyUI's skip-layer guidance asks: two prompts, not more."""
    positive, negative = arguments["conds"]
    model, *rest = (arguments[name] for name in ("model", "input", "sigma", "model_options"))
    return comfy.samplers.calc_cond_batch(model, [positive, negative], *rest)


with torch.inference_mode():
    nodes = load_pack(pack_folder)
    model, clip, vae = nodes.demo.LoadDemoModel.execute().args

    def words(text):
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))

    scenes = [
        nodes.demo.DrawDemoScene.execute(shape="star", fill="striped", color="red", background="blue", layout=layout)
        for layout in (4, 12)
    ]
    pictures, shapes = (torch.cat([scene.args[i] for scene in scenes]) for i in (0, 1))
    latent = {"samples": vae.encode(pictures)}
    source, empty = words("a striped red star on a blue background"), words("")
    green, teal = (words(f"a striped {a} star on a {b} background") for a, b in (("green", "blue"), ("red", "teal")))
    halves = torch.zeros(1, 192, 192)
    halves[..., :96] = 1
    numbers, sizes, reports = {"shapes": shapes}, {}, {}

    def mask_of(name, maps, target, **changes):
        with counted(model) as calls:
            numbers[name], shown, reports[name] = nodes.masks.MaskFromPrompts.execute(
                model, target, empty, maps, vae, **{**MASK, **changes}
            ).args
        numbers[f"{name} shown"], sizes[name] = shown, calls
        return numbers[name]

    def edit(name, maps, target, cfg, mask):
        (edited,) = nodes.edit.NoiseMapEdit.execute(model, target, empty, maps, cfg=cfg, skip=-1, mask=mask).args
        numbers[name] = (edited["samples"] - latent["samples"]).abs() / latent["samples"].abs().max()

    for inverted_at in (1.0, 3.5):
        (maps,) = nodes.invert.EditFriendlyInvert.execute(
            model, source, empty, latent, cfg=inverted_at, chunk=0, **SETTINGS
        ).args
        region = mask_of(f"green {inverted_at}", maps, green)
        mask_of(f"source {inverted_at}", maps, source)
        edit(f"back {inverted_at}", maps, source, inverted_at, region)
    mask_of("teal", maps, teal)
    mask_of("few", maps, green, start=60.0, end=40.0)
    for name, own in (("half", halves), ("nothing", 0 * halves), ("everything", 0 * halves + 1)):
        mask_of(name, maps, green, mask=own)
    masked = {**latent, "noise_mask": halves}
    (held,) = nodes.invert.EditFriendlyInvert.execute(model, source, empty, masked, cfg=1.0, chunk=0, **SETTINGS).args
    mask_of("inverted with half", held, green)
    edit("edited", maps, green, 5.0, region)

    def term(target, before=None, **changes):
        return nodes.several.AddEdit.execute(target, edits=before, **{**TERM, **changes}).args[0]

    def several(name, maps, edits, positive=source, **changes):
        with counted(model) as calls:
            (edited,) = nodes.edit.NoiseMapEdit.execute(
                model, positive, empty, maps, **{"cfg": 4.0, "skip": -1, "edits": edits, **changes}
            ).args
        numbers[name], sizes[name] = edited["samples"], calls

    def advanced(name, maps, **changes):
        (guider,) = nodes.several.EditGuider.execute(model, source, empty, maps, **{"cfg": 4.0, **changes}).args
        noise, sampler, sigmas = nodes.edit.NoiseMapSampler.execute(maps, skip=-1).args
        with counted(model) as calls:
            numbers[name] = guider.sample(
                noise.generate_noise(latent), latent["samples"], sampler, sigmas, seed=noise.seed, disable_pbar=True
            )
        sizes[name] = calls

    numbers["latent"] = latent["samples"]
    drawn = {"shape": "star", "fill": "striped", "layout": 4}
    for name, color, background in (("both", "green", "yellow"), ("one", "green", "blue"), ("other", "red", "yellow")):
        (scene, *_) = nodes.demo.DrawDemoScene.execute(color=color, background=background, **drawn).args
        numbers[f"true {name}"] = vae.encode(scene)
    yellow = words("a striped red star on a yellow background")
    for inverted_at in (1.0, 3.5):
        (maps,) = nodes.invert.EditFriendlyInvert.execute(
            model, source, empty, latent, cfg=inverted_at, chunk=0, **SETTINGS
        ).args
        free, at = {"auto_mask": False}, f"at {inverted_at}"
        several(f"to itself {at}", maps, term(source, term(source, strength=-9.0)))
        several(f"by nothing {at}", maps, term(yellow, term(green, strength=0.0), strength=0.0))
        several(f"two {at}", maps, term(yellow, term(green)))
        several(f"two without masks {at}", maps, term(yellow, term(green, **free), **free))
        several(f"one {at}", maps, term(green, strength=4.0, **free))
        several(f"the same as one {at}", maps, None, positive=green, source=source)
        several(f"one more {at}", maps, term(yellow, **free), positive=green, source=source)
        advanced(f"guider {at}", maps, positive=green)
        advanced(f"guider of two {at}", maps, edits=term(yellow, term(green)))
        # Prompts that are not everywhere, or not always, and what others make of the branches.
        area = {"area": (12, 12, 6, 6), "strength": 1.0, "set_area_to_bounds": False}
        mask = {"mask": halves[:, ::8, ::8], "mask_strength": 1.0, "set_area_to_bounds": False}
        parts = {"an area": area, "a mask": mask, "late steps": {"start_percent": 0.8, "end_percent": 1.0}}
        for name, entries in parts.items():
            several(f"to itself in {name} {at}", maps, term(with_entries(source, **entries), **free))
            several(f"green in {name} {at}", maps, term(with_entries(green, **entries), **free))
        several(f"by nothing in an area {at}", maps, term(with_entries(green, **area), strength=0.0, **free))
        everywhere = term(source, **free)  # so that the mask's outside is not kept by the mask alone
        several(f"green where the mask is {at}", maps, term(green, everywhere, mask=mask["mask"], **free))
        controlled = with_entries(green, control=Control(), control_apply_to_uncond=True)
        several(f"by nothing with a control {at}", maps, term(controlled, strength=0.0, **free))
        with_control = with_entries(source, control=Control(), control_apply_to_uncond=True)
        plain, pairs = model, model.clone()
        pairs.set_model_sampler_calc_cond_batch_function(in_pairs)
        led = model.clone()
        for kind, number, _ in nodes.host.attention.blocks_of(model):
            led.set_model_attn2_replace(led_from_the_negative, kind, number)
        for name, model, positive in (
            ("in pairs", pairs, source),
            ("led from the negative", led, source),
            ("with a control", plain, with_control),
        ):
            (own,) = nodes.invert.EditFriendlyInvert.execute(
                model, positive, empty, latent, cfg=inverted_at, chunk=0, **SETTINGS
            ).args
            several(f"to itself {name} {at}", own, term(positive, **free), positive=positive)
        model = plain
    several("nowhere", maps, term(green, mask=0 * halves))
    several("left half", maps, term(green, mask=halves, **free))
    several("left half and nothing", maps, term(green, term(yellow, strength=0.0, **free), mask=halves, **free))
    several("everywhere", maps, term(green, mask=0 * halves + 1, **free))
    several("no mask", maps, term(green, **free))
    several("early", maps, term(green, term(yellow, start=50.0, **free), end=55.0, **free))
    several("away", maps, term(green, strength=-5.0, **free))
    texts = {"sizes": json.dumps(sizes), "reports": json.dumps(reports)}
    save_file({key: value.clone().contiguous() for key, value in numbers.items()}, wanted, metadata=texts)
