"""Run with ComfyUI's Python, in ComfyUI's folder: what the nodes hand to ComfyUI and take from it,
where no picture shows it.

Usage: host_in_process.py PACK OUT.safetensors BYTES... The file's tensors are numbers, its metadata
texts; BYTES are amounts of free memory at which an inversion is tried.
"""

import io
import json
import logging
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from comfyui_process import arguments, load_pack

# isort: split
import comfy.model_management
import comfy.samplers
import folder_paths
import latent_preview
import torch
from safetensors.torch import save_file

pack_folder, wanted, *amounts = arguments
SETTINGS = {"steps": 6, "skip": 2, "cfg": 1.0, "eta": 1.0, "solver": "first_order", "scheduler": "normal", "seed": 0}


@contextmanager
def replaced(owner, name, value):
    real = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, real)


def free_memory(amount):
    """This much memory is free, as ComfyUI sees it."""

    def answer(device=None, torch_free_too=False):
        return (amount, amount) if torch_free_too else amount

    return replaced(comfy.model_management, "get_free_memory", answer)


class Previews:
    """What ComfyUI's previews are given: prediction and latent of each step."""

    def prepare(self, model, steps):
        self.predictions, self.latents = [], []

        def callback(step, x0, x, total_steps):
            assert (step, total_steps) == (len(self.latents), steps)
            self.predictions.append(x0.clone())
            self.latents.append(x.clone())

        return callback


def previews(invert, edit, latent):
    """The previews of an inversion and of an edit with its prompt, and the maps' own numbers."""
    of_inversion, of_edit = Previews(), Previews()
    with replaced(latent_preview, "prepare_callback", of_inversion.prepare):
        maps = invert(latent)
    with replaced(latent_preview, "prepare_callback", of_edit.prepare):
        edit(maps)
    told = {"inversion": of_inversion, "edit": of_edit}
    numbers = {"predictions": maps.predictions, "latents": maps.latents}
    for name, seen in told.items():
        numbers |= {f"{name}_predictions": torch.stack(seen.predictions), f"{name}_latents": torch.stack(seen.latents)}
    return numbers


def masks_on_the_way(invert, edit, latent):
    """The noise mask that the model is told of during an inversion and an edit, and the one on the
    edit's LATENT wire."""
    mask = torch.zeros(1, 256, 256)
    mask[:, :, :128] = 1
    seen, real = [], comfy.samplers.CFGGuider.inner_sample

    def inner_sample(self, noise, latent_image, device, sampler, sigmas, denoise_mask, *args, **more):
        seen.append(denoise_mask)
        return real(self, noise, latent_image, device, sampler, sigmas, denoise_mask, *args, **more)

    with replaced(comfy.samplers.CFGGuider, "inner_sample", inner_sample):
        edited = edit(invert({**latent, "noise_mask": mask}))
        plain = edit(invert(latent))
    masks = {"inverted_mask": seen[0], "edited_mask": seen[1], "passed_mask": edited.get("noise_mask")}
    numbers = {name: mask for name, mask in masks.items() if mask is not None}
    return numbers, {"plain": json.dumps([seen[2] is None, seen[3] is None, sorted(plain)])}


def cells(latent_mask):
    """Masks of pixels, and what they are on latents of two pictures, and of a video."""
    pixels = torch.rand(2, 24, 40, generator=torch.Generator().manual_seed(0))
    video = latent_mask(pixels.repeat(2, 1, 1), (1, 16, 2, 3, 5))
    return {"pixels": pixels, "cells": latent_mask(pixels, (4, 4, 3, 5)), "video_cells": video}


def files(nodes, maps):
    """Loading with exactly enough memory and with a byte less, and fingerprints of a file as its
    time passes."""
    texts = {}
    with tempfile.TemporaryDirectory() as folder:
        folder_paths.set_input_directory(folder)
        path = Path(folder) / "maps.safetensors"
        maps.save(path)
        needed = sum(getattr(maps, name).nbytes for name in ("sigmas", "latents", "residuals", "predictions"))
        for name, amount in (("enough", needed), ("little", needed - 1)):
            with free_memory(amount):
                try:
                    nodes.files.LoadNoiseMaps.execute(path.name)
                    texts[name] = "loaded"
                except ValueError as error:
                    texts[name] = str(error)
        prints = []
        for seconds in (1_000_000_000, 1_000_000_000, 1_000_000_001):
            os.utime(path, (seconds, seconds))
            prints.append(nodes.files.LoadNoiseMaps.fingerprint_inputs(path.name))
    return texts | {"fingerprints": json.dumps(prints)}


def warnings(invert, latent):
    """{amount of free memory: what is logged}."""
    texts = {}
    for amount in amounts:
        log = io.StringIO()
        logging.basicConfig(stream=log, format="%(levelname)s %(message)s", force=True)
        with free_memory(float(amount)):
            invert(latent, chunk=2)
        texts[f"free {amount}"] = log.getvalue()
    logging.basicConfig(stream=sys.stderr, force=True)
    return texts


with torch.inference_mode():
    nodes = load_pack(pack_folder)
    model, clip, _ = nodes.demo.LoadDemoModel.execute().args
    prompt = clip.encode_from_tokens_scheduled(clip.tokenize("a red star on a blue background"))
    latent = {"samples": torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))}

    def invert(latent, chunk=3):
        return nodes.invert.EditFriendlyInvert.execute(model, prompt, prompt, latent, chunk=chunk, **SETTINGS).args[0]

    def edit(maps):
        return nodes.edit.NoiseMapEdit.execute(model, prompt, prompt, maps, cfg=1.0, skip=-1).args[0]

    with replaced(nodes.host.demo_model.DemoLatent, "for_preview", None):  # as every other model has it
        numbers = previews(invert, edit, latent)
    numbers |= cells(nodes.host.masks.latent_mask)
    more, texts = masks_on_the_way(invert, edit, latent)
    numbers |= more
    texts |= files(nodes, invert(latent)) | warnings(invert, latent)
    save_file({key: value.clone().contiguous() for key, value in numbers.items()}, wanted, metadata=texts)
