"""The true classes of the model families, a few blocks wide and with random weights: for a script
that runs with ComfyUI's Python, in ComfyUI's folder, after ``comfyui_process``."""

import copy

import comfy.model_patcher
import comfy.supported_models as supported
import torch
from comfy.ldm.chroma.model import ChromaParams
from comfy.ldm.flux.model import FluxParams
from comfy.ldm.hunyuan_video.model import HunyuanVideoParams

WORDS, POOLED = 32, 16  # widths of the prompts
HEADS = {"num_heads": 2}

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "context_dim": WORDS,
    "use_spatial_transformer": True,
    "legacy": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
}
SD1 = {**UNET, "use_linear_in_transformer": False}
SD2 = {**UNET, "use_linear_in_transformer": True}
SDXL = {**SD2, "adm_in_channels": POOLED + 6 * 256, "num_classes": "sequential"}
FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": POOLED,
    "context_in_dim": WORDS,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
    **HEADS,
}
CHROMA = {
    **{name: value for name, value in FLUX.items() if name not in ("vec_in_dim", "guidance_embed")},
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "in_dim": 64,
    "out_dim": 64,
    "hidden_dim": 64,
    "n_layers": 1,
}
SD3 = {
    "in_channels": 16,
    "patch_size": 2,
    "depth": 2,  # heads of 64
    "input_size": None,
    "num_patches": 64,
    "pos_embed_max_size": 8,
    "pos_embed_scaling_factor": None,
    "adm_in_channels": POOLED,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": WORDS, "out_features": 128},
    },
    "qk_norm": "rms",
    "x_block_self_attn_layers": [0],
}
AURA = {
    "in_channels": 4,
    "dim": 64,
    "n_layers": 2,
    "n_double_layers": 1,
    "n_heads": 2,
    "global_conddim": 64,
    "cond_seq_dim": WORDS,
    "max_seq": 64,
}
LUMINA = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 64,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 1,
    "multiple_of": 16,
    "qk_norm": True,
    "cap_feat_dim": WORDS,
    "axes_dims": [8, 12, 12],
    "axes_lens": [64, 64, 64],
}
QWEN = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 1,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": WORDS,
    "axes_dims_rope": (8, 12, 12),
}
Z_IMAGE = {
    **LUMINA,
    "dim": 256,  # its time embedding's
    "n_heads": 8,
    "n_kv_heads": 8,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8 / 3,
    "pad_tokens_multiple": 32,
}
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "in_dim": 16,
    "out_dim": 16,
    "dim": 64,
    "ffn_dim": 64,
    "freq_dim": 32,
    "text_dim": WORDS,
    "text_len": 8,
    "num_layers": 1,
    **HEADS,
}
COSMOS = {
    "image_model": "cosmos_predict2",
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 64,
    "num_blocks": 1,
    "crossattn_emb_channels": WORDS,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    **HEADS,
}
HUNYUAN = {
    **FLUX,
    "image_model": "hunyuan_video",
    "patch_size": [1, 2, 2],
    "theta": 256,
    "byt5": False,
    "meanflow": False,
}

# What newer classes cannot do without, as a model has it that has none of it.
NEWER = {"txt_ids_dims": [], "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False}
for config, parameters in ((FLUX, FluxParams), (CHROMA, ChromaParams), (HUNYUAN, HunyuanVideoParams)):
    for name, value in {**NEWER, "vec_in_dim": None}.items():
        if name in parameters.__dataclass_fields__:
            config.setdefault(name, value)

V = {"output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.tensor([-1.0, 1.0])}
ZERO_SNR = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
PICTURE, FRAME, VIDEO = (8, 8), (1, 8, 8), (2, 8, 8)
# name: (class, configuration, what its checkpoint is told apart by, cells, guidance)
FAMILIES = {
    "SD 1.5": (supported.SD15, SD1, {}, PICTURE, 3.5),
    "SD 2 (v)": (supported.SD20, SD2, V, PICTURE, 3.5),
    "SDXL": (supported.SDXL, SDXL, {}, PICTURE, 3.5),
    "SDXL (v, zero terminal SNR)": (supported.SDXL, SDXL, ZERO_SNR, PICTURE, 3.5),
    "SD3": (supported.SD3, SD3, {}, PICTURE, 3.5),
    "Flux": (supported.Flux, FLUX, {}, PICTURE, 1.0),
    "Chroma": (supported.Chroma, CHROMA, {}, PICTURE, 3.5),
    "AuraFlow": (supported.AuraFlow, AURA, {}, PICTURE, 3.5),
    "Lumina 2": (supported.Lumina2, LUMINA, {}, PICTURE, 3.5),
    "Qwen-Image": (supported.QwenImage, QWEN, {}, FRAME, 2.5),
    "Wan": (supported.WAN21_T2V, WAN, {}, VIDEO, 3.5),
    "Cosmos-Predict2": (supported.CosmosT2IPredict2, COSMOS, {}, VIDEO, 3.5),
    "HunyuanVideo": (supported.HunyuanVideo, HUNYUAN, {}, VIDEO, 1.0),
}
if hasattr(supported, "ZImage"):
    FAMILIES["Z-Image"] = (supported.ZImage, Z_IMAGE, {}, PICTURE, 3.5)


def random_model(kind, unet_config, keys, seed=0):
    """A MODEL of a family, with every weight drawn at random, the zero ones of a new model too."""
    config = kind(copy.deepcopy(unet_config))
    config.set_inference_dtype(torch.float32, None)
    torch.use_deterministic_algorithms(True)  # memory without values is NaN, and not what it held
    model = config.get_model(dict(keys), "")
    torch.use_deterministic_algorithms(False)
    generator = torch.Generator().manual_seed(seed)
    gain = 0.5 if "num_res_blocks" in unet_config else 1.0  # a UNet of no training makes noise of noise
    for name, weight in model.diffusion_model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=gain * weight[0].numel() ** -0.5, generator=generator)
        elif name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.1, generator=generator)
        else:
            torch.nn.init.constant_(weight, 1.0)
    for name, buffer in model.diffusion_model.named_buffers():
        if name == "pos_embed":  # SD3's, which a checkpoint brings
            torch.nn.init.normal_(buffer, std=0.5, generator=generator)
    forgotten = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    assert not forgotten, f"without a value: {forgotten}"
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, cpu, cpu)


def prompt(seed, **more):
    generator = torch.Generator().manual_seed(seed)
    words = torch.randn(1, 8, WORDS, generator=generator)
    return [[words, {"pooled_output": torch.randn(1, POOLED, generator=generator), **more}]]
