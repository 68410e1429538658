"""LoRAs, ControlNets, hooks, and patches of ComfyUI and of other packs."""

import pytest

from tests.comfyui.rig.company import LORA, chunked_and_without
from tests.comfyui.rig.graphs import SOURCE, node

pytestmark = pytest.mark.usefixtures("lora")


def patch(kind, **inputs):
    return {"patched": node(kind, model=["model", 0], **inputs)}, {"model": ["patched", 0]}


HOOKS = {
    "hook": node("CreateHookLora", lora_name=LORA, strength_model=1.0, strength_clip=0.5),
    "early": node("CreateHookKeyframe", strength_mult=1.0, start_percent=0.0),
    "late": node("CreateHookKeyframe", strength_mult=0.2, start_percent=0.6, prev_hook_kf=["early", 0]),
    "scheduled": node("SetHookKeyframes", hooks=["hook", 0], hook_kf=["late", 0]),
}
MODELS = {
    "a LoRA": (
        {
            "lora": node(
                "LoraLoader",
                model=["model", 0],
                clip=["model", 1],
                lora_name=LORA,
                strength_model=1.0,
                strength_clip=1.0,
            ),
            "words": node("CLIPTextEncode", clip=["lora", 1], text=SOURCE),
        },
        {"model": ["lora", 0], "positive": ["words", 0]},
    ),
    "a ControlNet": (
        {
            "net": node("TestControlNet", model=["model", 0]),
            "controlled": node(
                "ControlNetApplyAdvanced",
                positive=["source", 0],
                negative=["empty", 0],
                control_net=["net", 0],
                image=["scene", 0],
                strength=0.5,
                start_percent=0.0,
                end_percent=0.6,
            ),
        },
        {"positive": ["controlled", 0], "negative": ["controlled", 1]},
    ),
    "a LoRA hooked to the prompt, by keyframes": (
        {
            **HOOKS,
            "hooked": node(
                "ConditioningSetProperties",
                cond_NEW=["source", 0],
                hooks=["scheduled", 0],
                strength=1.0,
                set_cond_area="default",
            ),
        },
        {"positive": ["hooked", 0]},
    ),
    "a text encoder scheduled by keyframes": (
        {
            **HOOKS,
            "clip": node(
                "SetClipHooks", clip=["model", 1], hooks=["scheduled", 0], apply_to_conds=False, schedule_clip=True
            ),
            "hooked": node("CLIPTextEncode", clip=["clip", 0], text=SOURCE),
        },
        {"positive": ["hooked", 0]},
    ),
    "RescaleCFG": patch("RescaleCFG", multiplier=0.7),
    "a guidance function": patch("TestCfgFunction"),
    "a wrapper of the UNet": patch("TestUnetWrapper"),
    "a function before guidance": patch("TestPreCfgFunction"),
    "branches of one's own": patch("TestCalcCondBatch"),
    "a context window": patch("TestContextHandler"),
    "perturbed attention": patch("PerturbedAttentionGuidance", scale=2.0),
    "FreeU": patch("FreeU_V2", b1=1.3, b2=1.4, s1=0.9, s2=0.2),
}


@pytest.mark.parametrize(("nodes", "sockets"), MODELS.values(), ids=MODELS)
def test_it_takes_effect_and_reconstructs_in_chunks_of_8(server, nodes, sockets):
    error, effect = chunked_and_without(server, nodes, sockets)
    assert error <= 1
    assert effect > 10
