"""For scripts run with ComfyUI's Python, in ComfyUI's folder (Server.run_script): ComfyUI on the
CPU, and the pack. Import it before torch."""

import importlib
import importlib.util
import sys
from pathlib import Path

arguments = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, str(Path.cwd()))

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()


def load_pack(folder):
    """The pack's nodes, under another name than its folder's, as ComfyUI imports them."""
    spec = importlib.util.spec_from_file_location(
        "any_name", Path(folder) / "__init__.py", submodule_search_locations=[folder]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["any_name"] = module
    spec.loader.exec_module(module)
    return importlib.import_module("any_name.nodes")


def led_from_the_negative(q, k, v, extra):
    """Attention as normalized attention guidance (NAG) changes it: where both branches are in a call,
    the positive one is led away from the negative one."""
    import torch
    from comfy.ldm.modules.attention import optimized_attention

    out, branches = optimized_attention(q, k, v, extra["n_heads"]), extra["cond_or_uncond"]
    if 0 in branches and 1 in branches:
        parts = list(out.chunk(len(branches)))
        parts[branches.index(0)] = 1.5 * parts[branches.index(0)] - 0.5 * parts[branches.index(1)]
        out = torch.cat(parts)
    return out
