"""Run with ComfyUI's Python, in its folder: what EditFriendlyInvert logs at each amount of free
memory. Usage: memory_in_process.py PACK BYTES..."""

import logging
import sys

from comfyui_process import arguments, load_pack

# isort: split
import comfy.model_management
import torch

pack_folder, *amounts = arguments

with torch.inference_mode():
    nodes = load_pack(pack_folder)
    model, clip, _ = nodes.demo.LoadDemoModel.execute().args
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize("a red star on a blue background"))
    settings = {
        "steps": 6,
        "skip": 2,
        "cfg": 1.0,
        "eta": 1.0,
        "solver": "first_order",
        "scheduler": "normal",
        "seed": 0,
        "chunk": 2,
    }
    logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", force=True)
    for free in map(float, amounts):
        print("free", free)
        comfy.model_management.get_free_memory = lambda device=None, torch_free_too=False, free=free: (
            (free, free) if torch_free_too else free
        )
        nodes.invert.EditFriendlyInvert.execute(
            model, conditioning, conditioning, {"samples": torch.ones(2, 4, 32, 32)}, **settings
        )
