"""Run with ComfyUI's Python, in ComfyUI's folder: what the model is asked for by the nodes that
read masks off noise maps, and their numbers.

Usage: masks_in_process.py PACK OUT.safetensors. The file's tensors are numbers, its metadata texts.
"""

import json
from contextlib import contextmanager

from comfyui_process import arguments, load_pack

# isort: split
import torch
from safetensors.torch import save_file

pack_folder, wanted = arguments
SETTINGS = {"steps": 12, "skip": 4, "eta": 1.0, "solver": "first_order", "scheduler": "ddim_uniform", "seed": 0}
MASK = {"threshold": 0.4, "softness": 0.4, "grow": 0, "start": 100.0, "end": 0.0, "cfg": -1.0}


@contextmanager
def counted(model):
    """How many samples each call of the model has."""
    sizes = []
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


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
    texts = {"sizes": json.dumps(sizes), "reports": json.dumps(reports)}
    save_file({key: value.clone().contiguous() for key, value in numbers.items()}, wanted, metadata=texts)
