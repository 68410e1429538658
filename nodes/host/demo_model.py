"""The demo weights as MODEL, CLIP and VAE: a latent diffusion model (arXiv 2112.10752,
High-Resolution Image Synthesis with Latent Diffusion Models) in Stable Diffusion's shape."""

from __future__ import annotations

import json
import sys

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import torch

from ...ddpm_core.checks import BadArgument
from ...ddpm_core.demo.model import CONTEXT, FOLDER, TEXT, UNET, VAE
from ...ddpm_core.demo.preview import load as load_preview
from ...ddpm_core.demo.words import warning
from .wires import say


def load_model() -> comfy.model_patcher.ModelPatcher:
    config = DemoConfig()
    offload = comfy.model_management.unet_offload_device()
    model = comfy.model_base.BaseModel(config, device=offload)
    _set_groups(model.diffusion_model, UNET["norm_num_groups"])
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    weights = {names[key]: value for key, value in _weights("unet").items()}
    model.diffusion_model.load_state_dict(weights)
    return comfy.model_patcher.ModelPatcher(model.train(False), comfy.model_management.get_torch_device(), offload)


def load_clip() -> comfy.sd.CLIP:
    """Raises BadArgument where the text encoder's file does not fit."""

    class Target:
        params = {}
        clip = DemoTextModel
        tokenizer = DemoTokenizer

    weights = _weights("text_encoder")
    weights["text_projection.weight"] = torch.eye(TEXT["hidden_size"])  # the pooled text that nothing reads
    count = sum(tensor.numel() for tensor in weights.values())
    clip = comfy.sd.CLIP(Target, parameters=count, model_options={"dtype": torch.float32})
    missing, unexpected = clip.load_sd(weights)
    if missing or unexpected:
        names = f"missing {missing[:3]}, unexpected {unexpected[:3]}"
        raise BadArgument("text_encoder", f"the text encoder's file does not fit ({names}).")
    return clip


def load_vae() -> comfy.sd.VAE:
    shape = {
        "double_z": True,
        "z_channels": VAE["latent_channels"],
        "resolution": VAE["sample_size"],
        "in_channels": 3,
        "out_ch": 3,
        "ch": VAE["block_out_channels"][0],
        "ch_mult": _multiples(VAE["block_out_channels"]),
        "num_res_blocks": VAE["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    config = {"params": {"ddconfig": shape, "embed_dim": VAE["latent_channels"]}}
    vae = comfy.sd.VAE(sd=_weights("vae"), config=config, dtype=torch.float32)
    _set_groups(vae.first_stage_model, VAE["norm_num_groups"])
    return vae


def _weights(part: str) -> dict[str, torch.Tensor]:
    name = "model.safetensors" if part == "text_encoder" else "diffusion_pytorch_model.safetensors"
    stored = comfy.utils.load_torch_file(str(FOLDER / part / name), safe_load=True)
    return {key: value.float() for key, value in stored.items()}


def _config(part: str) -> dict:
    return json.loads((FOLDER / part / "config.json").read_text())


def _multiples(channels: list[int]) -> list[int]:
    return [c // channels[0] for c in channels]


def _set_groups(module: torch.nn.Module, groups: int) -> None:
    """ComfyUI builds its normalisation layers with 32 groups; narrow models have fewer."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.GroupNorm):
            layer.num_groups = groups


class DemoLatent(comfy.latent_formats.LatentFormat):
    """The demo autoencoder's scale, and its map from latent channels to RGB for previews."""

    def __init__(self):
        self.scale_factor = _config("vae")["scaling_factor"]
        preview = json.loads((FOLDER / "preview.json").read_text())
        self.latent_rgb_factors = preview["latent_rgb_factors"]
        self.latent_rgb_factors_bias = preview["latent_rgb_factors_bias"]

    def for_preview(self, latent: torch.Tensor) -> torch.Tensor:
        """What ComfyUI's linear preview turns into the right colours: F^+ (RGB - bias), with RGB
        from the tiny decoder. (B, 4, h, w) -> (B, 4, 4 h, 4 w)."""
        decoder = load_preview().to(latent.device)
        rgb = decoder(latent.float()).movedim(1, -1)
        factors, bias = (rgb.new_tensor(one) for one in (self.latent_rgb_factors, self.latent_rgb_factors_bias))
        return ((rgb - bias) @ torch.linalg.pinv(factors)).movedim(-1, 1)


class DemoConfig(comfy.supported_models_base.BASE):
    """The demo UNet in the words of ComfyUI's model configurations."""

    unet_config = {
        "image_size": 32,
        "in_channels": UNET["in_channels"],
        "out_channels": UNET["out_channels"],
        "model_channels": UNET["block_out_channels"][0],
        "channel_mult": _multiples(UNET["block_out_channels"]),
        "num_res_blocks": [UNET["layers_per_block"]] * 3,
        "transformer_depth": [0, 1, 1],
        "transformer_depth_output": [1] * 6,
        "transformer_depth_middle": 1,
        "context_dim": UNET["cross_attention_dim"],
        "num_heads": UNET["attention_head_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "legacy": False,
    }
    unet_extra_config = {}

    def __init__(self):
        super().__init__(self.unet_config)
        self.latent_format = DemoLatent()
        self.unet_config["dtype"] = torch.float32


class DemoTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data=None):
        def tokenizer(embedding_directory=None, tokenizer_data=None):
            made = comfy.sd1_clip.SDTokenizer(
                str(FOLDER / "tokenizer"),
                max_length=CONTEXT,
                embedding_directory=embedding_directory,
                embedding_size=TEXT["hidden_size"],
                tokenizer_data=tokenizer_data or {},
            )
            # ComfyUI cuts long prompts itself, and the library warns of errors that will not come.
            made.tokenizer.model_max_length = sys.maxsize
            return made

        super().__init__(
            embedding_directory=embedding_directory, tokenizer_data=tokenizer_data or {}, tokenizer=tokenizer
        )

    def tokenize_with_weights(self, text, *args, **kwargs):
        problem = warning(text)
        if problem:
            say("LoadDemoModel", problem)
        return super().tokenize_with_weights(text, *args, **kwargs)


class DemoTextModel(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        config = _config("text_encoder")
        end = config["eos_token_id"]
        super().__init__(
            device=device,
            dtype=dtype,
            model_options=model_options or {},
            clip_model=comfy.sd1_clip.SDClipModel,
            max_length=CONTEXT,
            textmodel_json_config=config,
            special_tokens={"start": config["bos_token_id"], "end": end, "pad": end},
            return_projected_pooled=False,
        )
        words, width = config["vocab_size"], config["hidden_size"]
        small = self.clip_l.operations.Embedding(words, width, dtype=dtype, device=device)
        self.clip_l.transformer.set_input_embeddings(small)  # ComfyUI builds every CLIP with the full-size vocabulary
