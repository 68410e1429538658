"""Run with ComfyUI's Python, in ComfyUI's folder: what the nodes that compare and measure give, in
full precision.

Usage: measure_in_process.py PACK OUT.safetensors. The file's tensors are numbers, its metadata
texts.
"""

import json
import sys
import tempfile
from pathlib import Path

from comfyui_process import arguments, load_pack

# isort: split
import comfy.clip_vision
import comfy.utils
import torch
from safetensors.torch import save_file

pack_folder, wanted = arguments
SETTINGS = {
    "steps": 6,
    "skip": 1,
    "cfg": 1.0,
    "eta": 1.0,
    "solver": "first_order",
    "scheduler": "ddim_uniform",
    "seed": 3,
    "chunk": 0,
}
SKIPS, CFGS = (4, 1), (2.0, 5.5)


class Progress:
    """What the progress bar was told while entered: (value, total) each."""

    def __enter__(self):
        self.told = []
        comfy.utils.set_progress_bar_global_hook(
            lambda value, total, preview, node_id=None: self.told.append((value, total))
        )
        return self

    def __exit__(self, *exception):
        comfy.utils.set_progress_bar_global_hook(None)

    def tensor(self):
        return torch.tensor(self.told)


def message(call):
    """What a refusal says."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return "no error"


def grid(nodes, model, vae, maps, target, empty):
    """The sheet, its pictures, and the same edits by NoiseMapEdit."""
    skips, cfgs = (", ".join(map(str, values)) for values in (SKIPS, CFGS))
    settings = {"skips": skips, "cfgs": cfgs, "side": 192}
    calls = []
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    with Progress() as progress:
        sheets, pictures = nodes.grid.EditGrid.execute(model, target, empty, maps, vae, **settings).args
    together, calls[:] = torch.tensor(calls), []
    other = model.clone()
    other.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    _, patched = nodes.grid.EditGrid.execute(other, target, empty, maps, vae, **settings).args
    hook.remove()
    edits = [
        nodes.edit.NoiseMapEdit.execute(model, target, empty, maps, cfg=cfg, skip=skip).args[0]["samples"]
        for skip in SKIPS
        for cfg in CFGS
    ]
    alone = torch.stack([vae.decode(edit) for edit in edits])  # (cells, N, H, W, 3)
    numbers = {"sheets": sheets, "pictures": pictures, "alone": alone, "grid_progress": progress.tensor()}
    return {**numbers, "grid_calls": together, "patched": patched, "patched_calls": torch.tensor(calls)}


def ddim(nodes, model, latent, source, empty):
    """DDIM inversion whose widgets ask for something else."""
    with Progress() as progress:
        settings = {**SETTINGS, "eta": 0.7, "solver": "dpmpp_2m_sde", "inversion": "ddim"}
        (maps,) = nodes.invert.EditFriendlyInvert.execute(model, source, empty, latent, **settings).args
    refused = message(lambda: nodes.stats.NoiseMapStats.execute(maps))
    numbers = {
        "ddim_progress": progress.tensor(),
        "ddim_mask": maps.mask,
        "ddim_residuals": maps.residuals,
        "ddim_last": maps.latents[-1],
    }
    return numbers, {"ddim": f"{maps.eta} {maps.solver.value} {maps.skipped}", "ddim_stats": refused}


def lpips(metrics, unavailable):
    """The text with an LPIPS of our own in place of the package's, with and without a mask, and
    without any."""
    source, edited = torch.zeros(1, 16, 16, 3), torch.ones(1, 16, 16, 3)
    edited[:, :, :8] = 0.5
    left = (edited[..., 0] < 1).float()

    def measure(loader, **more):
        metrics.load_lpips = loader
        return metrics.EditMetrics.execute(source, edited, gain=1.0, **more).args[0]

    def absent():
        raise unavailable("no weights here")

    def ours():
        return lambda a, b: (a - b).abs().mean().item()

    return {"lpips": measure(ours), "lpips_masked": measure(ours, mask=left), "lpips_absent": measure(absent)}


def clip_similarity(metrics, pictures):
    """The text with a small CLIP vision model of random weights; the cosine of its embeddings."""
    config = {
        "hidden_act": "quick_gelu",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_channels": 3,
        "num_hidden_layers": 2,
    }
    config |= {
        "image_size": 28,
        "patch_size": 14,
        "projection_dim": 16,
        "model_type": "clip_vision_model",
        "layer_norm_eps": 1e-5,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        vision = comfy.clip_vision.ClipVisionModel(str(path))
    generator = torch.Generator().manual_seed(0)
    for weights in vision.model.parameters():
        weights.copy_(torch.randn(weights.shape, generator=generator) * 0.3)
    first, second = pictures[:1], pictures[1:]
    embeddings = [vision.encode_image(picture).image_embeds for picture in (first, second)]
    texts = [
        metrics.EditMetrics.execute(first, other, gain=1.0, clip_vision=vision).args[0] for other in (second, first)
    ]
    return {"cosine": torch.cosine_similarity(*embeddings)}, {"clip": texts[0], "clip_same": texts[1]}


with torch.inference_mode():
    nodes = load_pack(pack_folder)
    model, clip, vae = nodes.demo.LoadDemoModel.execute().args
    scenes = [("star", "striped", "red", "blue", 12), ("ring", "plain", "teal", "pink", 5)]
    pictures = torch.cat([nodes.demo.DrawDemoScene.execute(*scene).args[0] for scene in scenes])
    mask = torch.zeros(1, 192, 192)
    mask[:, :, :96] = 1
    latent = {"samples": vae.encode(pictures), "noise_mask": mask}
    source, target, empty = (
        clip.encode_from_tokens_scheduled(clip.tokenize(words))
        for words in ("a star", "a plain green star on a blue background", "")
    )
    (maps,) = nodes.invert.EditFriendlyInvert.execute(model, source, empty, latent, **SETTINGS).args

    numbers = {"source": vae.decode(latent["samples"]), "latent": maps.latents[-1]} | grid(
        nodes, model, vae, maps, target, empty
    )
    more, texts = ddim(nodes, model, latent, source, empty)
    numbers |= more
    more, clip_texts = clip_similarity(nodes.metrics, pictures)
    numbers |= more
    texts |= clip_texts | lpips(nodes.metrics, nodes.metrics.Unavailable)
    sys.modules |= dict.fromkeys(("matplotlib", "matplotlib.figure"), None)
    texts["no_matplotlib"] = message(lambda: nodes.stats.NoiseMapStats.execute(maps))
    save_file({key: value.clone().contiguous() for key, value in numbers.items()}, wanted, metadata=texts)
