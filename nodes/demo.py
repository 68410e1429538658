"""LoadDemoModel and DrawDemoScene: the small model that ships with the pack, and pictures for it."""

from __future__ import annotations

import json

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import torch
from comfy_api.latest import io

from ..ddpm_core.demo import scenes
from ..ddpm_core.demo.model import CONTEXT, FOLDER, TEXT, UNET, VAE


class LoadDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadDemoModel",
            display_name="Load Demo Model",
            category="edit-friendly noise maps/demo",
            description="A small diffusion model of drawn scenes that ships with the pack: try every node with no download. It draws 192 x 192 pictures.",
            inputs=[],
            outputs=[
                io.Model.Output(
                    id="model", display_name="MODEL", tooltip="The denoiser, for every node that takes a MODEL."
                ),
                io.Clip.Output(
                    id="clip",
                    display_name="CLIP",
                    tooltip='The text encoder. It knows captions such as "a striped red star on a blue background".',
                ),
                io.Vae.Output(
                    id="vae", display_name="VAE", tooltip="The autoencoder: 8 pixels a latent cell, 4 channels."
                ),
            ],
        )

    @classmethod
    def execute(cls, **kwargs) -> io.NodeOutput:
        return io.NodeOutput(_load_model(), _load_clip(), _load_vae())


def _weights(part: str) -> dict[str, torch.Tensor]:
    name = "model.safetensors" if part == "text_encoder" else "diffusion_pytorch_model.safetensors"
    return {
        key: value.float()
        for key, value in comfy.utils.load_torch_file(str(FOLDER / part / name), safe_load=True).items()
    }


def _config(part: str) -> dict:
    return json.loads((FOLDER / part / "config.json").read_text())


class DemoLatent(comfy.latent_formats.LatentFormat):
    """The demo autoencoder's scale, and its map from latent channels to RGB for previews."""

    def __init__(self):
        self.scale_factor = _config("vae")["scaling_factor"]
        preview = json.loads((FOLDER / "preview.json").read_text())
        self.latent_rgb_factors, self.latent_rgb_factors_bias = (
            preview["latent_rgb_factors"],
            preview["latent_rgb_factors_bias"],
        )


def _multiples(channels: list[int]) -> list[int]:
    return [c // channels[0] for c in channels]


class DemoConfig(comfy.supported_models_base.BASE):
    """The demo UNet in the words of ComfyUI's model configurations."""

    unet_config = {  # noqa: RUF012
        "image_size": 32,
        "in_channels": UNET["in_channels"],
        "out_channels": UNET["out_channels"],
        "model_channels": UNET["block_out_channels"][0],
        "channel_mult": _multiples(UNET["block_out_channels"]),
        "num_res_blocks": [UNET["layers_per_block"]] * 3,
        "transformer_depth": [0, 1, 1],
        "transformer_depth_output": [0, 0, 1, 1, 1, 1],
        "transformer_depth_middle": 1,
        "context_dim": UNET["cross_attention_dim"],
        "num_heads": UNET["attention_head_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "legacy": False,
    }
    unet_extra_config = {}  # noqa: RUF012

    def __init__(self):
        super().__init__(self.unet_config)
        self.latent_format = DemoLatent()
        self.unet_config["dtype"] = torch.float32


def _set_groups(module: torch.nn.Module, groups: int) -> None:
    """ComfyUI builds its normalisation layers with 32 groups; narrow models have fewer."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.GroupNorm):
            layer.num_groups = groups


def _load_model() -> comfy.model_patcher.ModelPatcher:
    config = DemoConfig()
    offload = comfy.model_management.unet_offload_device()
    model = comfy.model_base.BaseModel(config, device=offload)
    _set_groups(model.diffusion_model, UNET["norm_num_groups"])
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    weights = {names[key]: value for key, value in _weights("unet").items()}
    model.diffusion_model.load_state_dict(weights)
    return comfy.model_patcher.ModelPatcher(model.eval(), comfy.model_management.get_torch_device(), offload)


class DemoTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data=None):
        def tokenizer(embedding_directory=None, tokenizer_data=None):
            return comfy.sd1_clip.SDTokenizer(
                str(FOLDER / "tokenizer"),
                max_length=CONTEXT,
                embedding_directory=embedding_directory,
                embedding_size=TEXT["hidden_size"],
                tokenizer_data=tokenizer_data or {},
            )

        super().__init__(
            embedding_directory=embedding_directory, tokenizer_data=tokenizer_data or {}, tokenizer=tokenizer
        )


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
        small = self.clip_l.operations.Embedding(
            config["vocab_size"], config["hidden_size"], dtype=dtype, device=device
        )
        self.clip_l.transformer.set_input_embeddings(small)  # ComfyUI builds every CLIP with the full-size vocabulary


def _load_clip() -> comfy.sd.CLIP:
    class Target:
        params = {}  # noqa: RUF012
        clip = DemoTextModel
        tokenizer = DemoTokenizer

    weights = _weights("text_encoder")
    weights["text_projection.weight"] = torch.eye(TEXT["hidden_size"])  # the pooled text that nothing reads
    clip = comfy.sd.CLIP(
        Target, parameters=sum(w.numel() for w in weights.values()), model_options={"dtype": torch.float32}
    )
    missing, unexpected = clip.load_sd(weights)
    _check_loaded("text encoder", missing, unexpected)
    return clip


def _load_vae() -> comfy.sd.VAE:
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


def _check_loaded(part: str, missing: list[str], unexpected: list[str]) -> None:
    if missing or unexpected:
        raise ValueError(
            f"LoadDemoModel: the {part}'s file does not fit (missing {missing[:3]}, unexpected {unexpected[:3]}). Install the pack again."
        )


class DrawDemoScene(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DrawDemoScene",
            display_name="Draw Demo Scene",
            category="edit-friendly noise maps/demo",
            description="A picture for the demo model: one shape on a shaded background with a few grey dots. "
            "Position, size, rotation, shading and dots come from the layout number.",
            inputs=[
                io.Combo.Input("shape", options=list(scenes.SHAPES), default="star", tooltip="The shape."),
                io.Combo.Input(
                    "fill", options=list(scenes.FILLS), default="striped", tooltip="How the shape is filled."
                ),
                io.Combo.Input("color", options=list(scenes.COLORS), default="red", tooltip="The colour of the shape."),
                io.Combo.Input(
                    "background",
                    options=list(scenes.BACKGROUNDS),
                    default="blue",
                    tooltip="The colour of the background.",
                ),
                io.Int.Input(
                    "layout",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    tooltip="Which position, size, rotation, shading and dots.",
                ),
            ],
            outputs=[
                io.Image.Output(id="image", display_name="IMAGE", tooltip="The picture, 192 x 192."),
                io.Mask.Output(id="mask", display_name="MASK", tooltip="The shape's region."),
                io.String.Output(
                    id="caption",
                    display_name="caption",
                    tooltip="What the picture shows, as the demo model was taught to say it.",
                ),
            ],
        )

    @classmethod
    def execute(cls, shape, fill, color, background, layout, **kwargs) -> io.NodeOutput:
        scene = scenes.scene_with(layout, shape=shape, fill=fill, color=color, background=background)
        return io.NodeOutput(
            scenes.render([scene]).movedim(1, -1), scenes.coverage([scene])[:, 0], scenes.caption(scene)
        )


NODES = [LoadDemoModel, DrawDemoScene]
