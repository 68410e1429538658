"""Run with ComfyUI's Python, in ComfyUI's folder: the true classes of the model families along the
pack's nodes; and models that the nodes refuse.

Usage: families.py PACK OUT.json. Numbers are errors and changes relative to the greatest value.
"""

import dataclasses
import io
import json
import logging
import tempfile
import traceback
from pathlib import Path
from types import SimpleNamespace

from comfyui_process import arguments, load_pack

# isort: split
import comfy.model_sampling
import torch
from family_models import FAMILIES, prompt, random_model

pack_folder, wanted = arguments
SETTINGS = {"steps": 6, "skip": 1, "solver": "first_order", "scheduler": "simple", "seed": 3}


class Family:
    """A model with the nodes around it."""

    def __init__(self, name):
        kind, config, keys, cells, self.cfg = FAMILIES[name]
        self.model = random_model(kind, config, keys)
        channels = self.model.get_model_object("latent_format").latent_channels
        self.latent = torch.randn(2, channels, *cells, generator=torch.Generator().manual_seed(1))
        more = {"attention_mask": torch.ones(1, 8, dtype=torch.long)} if name in ("Lumina 2", "Z-Image") else {}
        self.source, self.target, self.negative = (prompt(seed, **more) for seed in (11, 12, 13))

    def invert(self, samples, *, eta=1.0, chunk=0, seed=SETTINGS["seed"], mask=None, **more):
        settings = {**SETTINGS, "cfg": self.cfg, "eta": eta, "chunk": chunk, "seed": seed, **more}
        latent = {"samples": samples, **({} if mask is None else {"noise_mask": mask})}
        node = nodes.invert.EditFriendlyInvert
        return node.execute(self.model, self.source, self.negative, latent, **settings).args[0]

    def edit(self, maps, prompt, **more):
        settings = {"cfg": self.cfg, "skip": -1, **more}
        return nodes.edit.NoiseMapEdit.execute(self.model, prompt, self.negative, maps, **settings).args[0]["samples"]

    def velocity(self, x, sigma, prompt):
        """What the model itself says at one noise level, without guider and sampler."""
        [[words, more]] = prompt
        x, sigma = x.float(), x.new_full((len(x),), sigma).float()
        extra = {"y": more["pooled_output"]}
        if "guidance" in more:
            extra["guidance"] = torch.tensor([more["guidance"]])
        x0_hat = self.model.model.apply_model(x, sigma, c_crossattn=words, **extra)
        return ((x - x0_hat) / sigma.view(-1, *[1] * (x.dim() - 1))).double()


def apart(one, other):
    return ((one - other).abs().max() / other.abs().max()).item()


def checks(family):
    """{what: how far apart}."""
    both, one = family.latent, family.latent[:1]
    seen = {}
    for eta in (0.0, 1.0):
        maps = family.invert(one, eta=eta)
        back = family.edit(maps, family.source)
        seen[f"back, eta {eta:g}"] = apart(back, one)
        seen[f"moved, eta {eta:g}"] = apart(family.edit(maps, family.target), one)
    edited = family.edit(maps, family.target)
    sizes = []
    hook = family.model.model.diffusion_model.register_forward_pre_hook(lambda module, x: sizes.append(len(x[0])))
    batch = family.invert(both)
    hook.remove()
    seen["most rows in a call"] = max(sizes)
    seen["back, batch of 2"] = apart(family.edit(batch, family.source), both)
    together, second = family.edit(batch, family.target), family.invert(both[1:], seed=SETTINGS["seed"] + 1)
    seen["batch of 2, as alone"] = apart(together, torch.cat((edited, family.edit(second, family.target))))
    seen["chunk 1, as by itself"] = apart(family.invert(both, chunk=1).residuals, batch.residuals)
    seen["chunk 3, as by itself"] = apart(family.invert(both, chunk=3).residuals, batch.residuals)
    half = torch.zeros(1, 64, 64)
    half[..., :32] = 1
    masked = family.edit(maps, family.target, mask=half)
    left, right = (torch.arange(8) < 4), (torch.arange(8) >= 4)
    seen["outside the mask"] = apart(masked[..., right], one[..., right])
    seen["moved, inside the mask"] = apart(masked[..., left], one[..., left])
    inverted = family.invert(one, mask=half)
    seen["back, with a noise mask"] = apart(family.edit(inverted, family.source), one)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "maps.safetensors"
        maps.save(path)
        seen["saved and loaded"] = apart(family.edit(type(maps).load(path), family.target), edited)
    return seen


def flow_edit(name, guidance, cfg_source, cfg_target):
    """An edit at eta 0 by the nodes, beside FlowEdit's own update (Kulikov et al. 2412.08629,
    algorithm 1) on the model's own velocities and the path's noise:

        z_src = (1 - t) x_src + t n,   z_tar = z_fe + z_src - x_src,
        z_fe <- z_fe + (t_next - t) (v(z_tar; target) - v(z_src; source))
    """
    family = Family(name)
    if guidance:
        family.source, family.target = (prompt(seed, guidance=g) for seed, g in zip((11, 12), guidance))
    one, family.cfg = family.latent[:1], cfg_source
    maps = family.invert(one, eta=0.0)
    edited = family.edit(maps, family.target, cfg=cfg_target)

    def guided(x, t, words, cfg):
        u = 0 if cfg == 1 else (1 - cfg) * family.velocity(x, t, family.negative)
        return u + cfg * family.velocity(x, t, words)

    x_src = z_fe = family.model.model.process_latent_in(one).double()
    for t, t_next, z_src in zip(maps.sigmas[:-1].tolist(), maps.sigmas[1:].tolist(), maps.latents.double()):
        z_tar = z_fe + z_src - x_src
        change = guided(z_tar, t, family.target, cfg_target) - guided(z_src, t, family.source, cfg_source)
        z_fe = z_fe + (t_next - t) * change
    expected = family.model.model.process_latent_out(z_fe.float())
    return {"FlowEdit": apart(edited, expected), "moved": apart(expected, one)}


def flow_align(name):
    """The same beside FlowAlign's update (arXiv 2505.23145, algorithm 1), w = 13.5, zeta = 0.01:

    q = (1 - t) x_src + t n,   p = y + q - x_src,   p_0 = s(p) + w (target(p) - s(p)),
    y <- y + (t_next - t) (v_p - v_q) + zeta (q_0 - p_0),   x_0 = x - t v(x)
    """
    family = Family(name)
    one, family.cfg, w, zeta = family.latent[:1], 1.0, 13.5, 0.01
    maps = family.invert(one, eta=0.0, skip=0)
    edited = family.edit(maps, family.target, source=family.source, cfg=w, faithfulness=zeta)
    x_src = y = family.model.model.process_latent_in(one).double()
    for t, t_next, q in zip(maps.sigmas[:-1].tolist(), maps.sigmas[1:].tolist(), maps.latents.double()):
        p = y + q - x_src
        v_q, v_s, v_t = (
            family.velocity(*at) for at in ((q, t, family.source), (p, t, family.source), (p, t, family.target))
        )
        v_p = v_s + w * (v_t - v_s)
        y = y + (t_next - t) * (v_p - v_q) + zeta * ((q - t * v_q) - (p - t * v_p))
    expected = family.model.model.process_latent_out(y.float())
    return {"FlowAlign": apart(edited, expected), "moved": apart(expected, one)}


def turbo(name):
    """Four steps with TurboEdit's path, guidance from the source (w 1.5), and no cap or a low one."""
    family, rows = Family(name), []
    family.cfg, one = 1.0, family.latent[:1]
    hook = family.model.model.diffusion_model.register_forward_pre_hook(lambda module, x: rows.append(len(x[0])))
    maps = family.invert(one, steps=5, inversion="turbo", cap=0.0)
    moved = family.edit(maps, family.target, source=family.source, cfg=1.5)
    hook.remove()
    back = family.edit(maps, family.source, source=family.source, cfg=1.5)
    capped = family.invert(one, steps=5, inversion="turbo", cap=1.0)
    norm = capped.residuals[-1].norm() / (one.numel() / 16384) ** 0.5
    seen = {"steps": len(maps.residuals), "rows": sum(rows), "cap": norm.item()}
    return {**seen, "back, turbo": apart(back, one), "moved": apart(moved, one)}


def notices():
    """{what: the warnings of an edit} with models that are, or are not, the one of the inversion."""
    family, seen = Family("SDXL"), {}
    kind, config, keys, *_ = FAMILIES["SDXL"]
    v = type("Sampling", (comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION), {})
    predicts_v, with_lora = family.model.clone(), family.model.clone()
    predicts_v.add_object_patch("model_sampling", v())
    weights = with_lora.model.diffusion_model.named_parameters()
    with_lora.add_patches({f"diffusion_model.{name}": (0.01 * torch.ones_like(weight),) for name, weight in weights})
    maps = family.invert(family.latent)
    for name, model, held in (
        ("the same", family.model, maps),
        ("with a LoRA", with_lora, maps),
        ("another checkpoint", random_model(kind, config, keys, seed=1), maps),
        ("another prediction", predicts_v, maps),
        ("of an older file", predicts_v, dataclasses.replace(maps, model=None)),
    ):
        log = io.StringIO()
        handler = logging.StreamHandler(log)
        logging.getLogger().addHandler(handler)
        family.model = model
        for _ in range(2):  # before the model is loaded, and then
            family.edit(held, family.source)
        logging.getLogger().removeHandler(handler)
        seen[name] = [line for line in log.getvalue().splitlines() if "noise maps" in line]
    return seen


def edit_models(family):
    """A model that is shown pictures beside its prompt, in both prompts."""
    pictures = {"reference_latents": [family.latent[1:]]}
    family.source, family.target, plain = prompt(11, **pictures), prompt(12, **pictures), family.source
    maps = family.invert(family.latent[:1])
    seen = {"back, with a reference": apart(family.edit(maps, family.source), family.latent[:1])}
    return {**seen, "moved, without the reference": apart(family.edit(maps, plain), family.latent[:1])}


def refusals(family):
    """{what: the error} for models and latents that have no noise maps."""

    def sampling(*bases, **attributes):
        changed = family.model.clone()
        flow = comfy.model_sampling.ModelSamplingDiscreteFlow
        made = type("Sampling", (flow, *bases), {})()
        for name, value in attributes.items():
            setattr(made, name, value)
        changed.add_object_patch("model_sampling", made)
        return changed

    const = comfy.model_sampling.CONST
    velocity = type("IMG_TO_IMG_VELOCITY", (const,), {})  # as ComfyUI of 2026 has it
    maps, said = family.invert(family.latent), {}
    for name, model, samples in (
        ("IMG_TO_IMG", sampling(comfy.model_sampling.IMG_TO_IMG), family.latent),
        ("IMG_TO_IMG_VELOCITY", sampling(velocity), family.latent),
        ("noise_scale", sampling(const, noise_scale=4.0), family.latent),
        ("nested", family.model, SimpleNamespace(is_nested=True)),
    ):
        real, family.model = family.model, model
        said[name] = [refusal(family.invert, samples)]
        if model is not real:
            said[name].append(refusal(family.edit, maps, family.target))
        family.model = real
    family.model = sampling(const, noise_scale=1.0)
    said["noise_scale 1"] = apart(family.edit(family.invert(family.latent), family.source), family.latent)
    return said


def refusal(run, *arguments):
    try:
        run(*arguments)
    except Exception as error:
        return str(error)
    return "no error"


def tried(work, *arguments):
    try:
        return work(*arguments)
    except Exception:
        return {"error": traceback.format_exc()}


with torch.inference_mode():
    nodes = load_pack(pack_folder)
    found = {"families": {name: tried(lambda n: checks(Family(n)), name) for name in FAMILIES}}
    found["references"] = {name: tried(lambda n: edit_models(Family(n)), name) for name in ("Flux", "Qwen-Image")}
    found["flow"] = {
        "Flux": flow_edit("Flux", (1.5, 5.5), 1.0, 1.0),
        "SD3": flow_edit("SD3", None, 3.5, 13.5),
    }
    found["flow"]["SD3, FlowAlign"] = flow_align("SD3")
    found["notices"] = notices()
    found["turbo"] = {name: turbo(name) for name in ("SDXL", "SD 2 (v)")}
    found["refusals"] = refusals(Family("SD3"))
    Path(wanted).write_text(json.dumps(found, indent=1))
