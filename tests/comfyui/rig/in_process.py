"""Run with ComfyUI's Python, in ComfyUI's folder: numbers that pictures of 8 bits cannot show.
Usage: in_process.py PACK IN.safetensors OUT.safetensors."""

from types import SimpleNamespace

from comfyui_process import arguments, load_pack

# isort: split
import comfy.model_management
import torch
from comfy.k_diffusion import sampling
from comfy.model_sampling import CONST
from safetensors.torch import load_file, save_file

pack_folder, given, wanted = arguments


def demo_model_outputs(model, clip, vae, inputs):
    """What the demo model gives in ComfyUI for the given picture, prompt and noisy latent."""
    tokens = clip.tokenize(bytes(inputs["prompt"].tolist()).decode())
    context = clip.encode_from_tokens_scheduled(tokens)[0][0]
    unet = model.model.diffusion_model
    picture = inputs["picture"].movedim(1, -1)
    latent = vae.encode(picture)
    return {
        "context": context,
        "latent": latent,
        "scaled": model.get_model_object("latent_format").process_in(latent),
        "decoded": vae.decode(inputs["latent"]).movedim(-1, 1),
        "noise": unet(inputs["noisy"], inputs["timesteps"], context=context.expand(len(inputs["noisy"]), -1, -1)),
        "sigma_of_timestep": model.get_model_object("model_sampling").sigmas,
    }


def edit_counts(nodes, model, conditioning, latent, cfg):
    """Samples in each call of the UNet for a 100 / 36 inversion and edit, and the greatest error of
    the reconstruction."""
    sizes = []
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    settings = {
        "steps": 100,
        "skip": 36,
        "cfg": cfg,
        "eta": 1.0,
        "solver": "first_order",
        "scheduler": "ddim_uniform",
        "seed": 3,
        "chunk": 8,
    }
    (maps,) = nodes.invert.EditFriendlyInvert.execute(
        model, conditioning, conditioning, {"samples": latent}, **settings
    ).args
    (edited,) = nodes.edit.NoiseMapEdit.execute(model, conditioning, conditioning, maps, cfg=cfg, skip=36).args
    hook.remove()
    error = (edited["samples"] - latent).abs().max() / latent.abs().max()
    return torch.tensor(sizes), error


def ancestral_steps(inputs):
    """ComfyUI's own sample_euler_ancestral and sample_dpmpp_2m_sde with the given noise and the
    fake denoiser of the test."""

    def denoise(x, sigma, **kwargs):
        return torch.tanh(x / (1 + sigma.view(-1, 1, 1, 1) ** 2))

    def noise(sigma, sigma_next):
        return next(draws)

    out = {}
    second = ("sample_dpmpp_2m_sde", {"solver_type": "midpoint"})
    for sigmas, process, kind, (name, options) in (
        (inputs["sigmas"], "ve", None, ("sample_euler_ancestral", {})),
        (inputs["sigmas"], "ve", None, second),
        (inputs["flow_sigmas"], "flow", CONST(), second),
    ):
        for eta in (0.3, 1.0):
            draws = iter(inputs["draws"])
            sampler = getattr(sampling, name)
            extra = {"model_options": {}, "seed": 0}
            model = Sampled(denoise, kind)
            out[f"{name}_{process}_{eta}"] = sampler(
                model,
                inputs["start"].clone(),
                sigmas,
                extra_args=extra,
                eta=eta,
                noise_sampler=noise,
                disable=True,
                **options,
            )
    return out


class Sampled:
    """What ComfyUI's samplers ask of a model beside calling it: whether it is a flow model."""

    def __init__(self, denoise, kind):
        self.denoise = denoise
        patcher = SimpleNamespace(get_model_object=lambda name: kind)
        self.inner_model = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=kind), model_patcher=patcher)

    def __call__(self, x, sigma, **kwargs):
        return self.denoise(x, sigma)


def patched_run(nodes, model, conditioning, latent):
    """Calls and reconstruction error under a patch that reads the first sigma of a batch only."""

    def scale(arguments):
        return arguments["denoised"] * (1 + 0.2 * torch.tanh(arguments["sigma"][0]))

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(scale)
    return edit_counts(nodes, patched, conditioning, latent, 3.5)


def chunks(nodes, model):
    """The automatic chunk with little, some and much free memory."""
    batching, shape = nodes.host.batching, torch.Size((1, 4, 64, 64))
    real, needed, chosen = comfy.model_management.get_free_memory, model.model.memory_required([2, 4, 64, 64]), []
    try:
        for share in (0.5, 4.0, 1000.0):
            comfy.model_management.get_free_memory = lambda device, share=share: 1.5 * share * needed
            chosen.append(batching.automatic_chunk(model.model, shape, torch.device("cpu")))
    finally:
        comfy.model_management.get_free_memory = real
    return torch.tensor(chosen)


with torch.inference_mode():
    nodes = load_pack(pack_folder)
    inputs = load_file(given)
    model, clip, vae = nodes.demo.LoadDemoModel.execute().args
    outputs = demo_model_outputs(model, clip, vae, inputs)
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize("a striped red star on a blue background"))
    for cfg in (3.5, 1.0):
        outputs[f"sizes_{cfg}"], outputs[f"error_{cfg}"] = edit_counts(
            nodes, model, conditioning, outputs["latent"], cfg
        )
    outputs["patched_sizes"], outputs["patched_error"] = patched_run(nodes, model, conditioning, outputs["latent"])
    outputs["chunks"] = chunks(nodes, model)
    outputs |= ancestral_steps(inputs)
    save_file({key: value.clone().contiguous() for key, value in outputs.items()}, wanted)
