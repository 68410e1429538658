"""The nodes in company: LoRAs, ControlNets, regional prompts, masks, batches, lists, hooks, patches
and guiders of ComfyUI and of other packs."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.comfyui.rig.graphs import SOURCE, TARGET, difference, graph, node, pictures, text
from tests.comfyui.rig.server import PACK, PromptError

LORA = "random.safetensors"
FEW = {"steps": 8, "skip": 3}


@pytest.fixture(scope="module", autouse=True)
def lora(server):
    """A LoRA of random weights on every attention of the demo UNet and of its text encoder."""
    weights, generator = {}, torch.Generator().manual_seed(0)
    for prefix, file in (
        ("lora_unet", "unet/diffusion_pytorch_model.safetensors"),
        ("lora_te", "text_encoder/model.safetensors"),
    ):
        with safe_open(PACK / "ddpm_core" / "demo" / "weights" / file, "pt") as stored:
            shapes = {
                key: stored.get_slice(key).get_shape()
                for key in stored.keys()
                if "attn" in key and key.endswith(".weight")
            }  # noqa: SIM118
        for key, (rows, columns) in shapes.items():
            name = f"{prefix}_{key.removesuffix('.weight').replace('.', '_')}"
            weights[f"{name}.lora_up.weight"] = 0.2 * torch.randn(rows, 4, generator=generator)
            weights[f"{name}.lora_down.weight"] = 0.2 * torch.randn(4, columns, generator=generator)
    save_file(weights, server.base / "models" / "loras" / LORA)


def edited(name, **changes):
    """One more edit of the graph, shown as "name"."""
    inputs = {
        "model": ["model", 0],
        "positive": ["target", 0],
        "negative": ["empty", 0],
        "noise_maps": ["maps", 0],
        "cfg": 3.5,
        "skip": -1,
    }
    return shown(name, f"{name} edit") | {f"{name} edit": node("NoiseMapEdit", **{**inputs, **changes})}


def shown(name, latent):
    return {
        f"{name} decoded": node("VAEDecode", samples=[latent, 0], vae=["model", 2]),
        name: node("PreviewImage", images=[f"{name} decoded", 0]),
    }


def apart(history, one, other):
    """Greatest difference, in 1/255, between two results."""
    return np.abs(pictures(history, one) - pictures(history, other)).max()


def split(x=96):
    """Nodes of a mask that is 1 left of x and 0 elsewhere, named "left side"."""
    return {
        "nothing": node("SolidMask", value=0.0, width=192, height=192),
        "part": node("SolidMask", value=1.0, width=x, height=192),
        "left side": node("MaskComposite", destination=["nothing", 0], source=["part", 0], x=0, y=0, operation="add"),
    }


SIDES = {**split(), "right side": node("InvertMask", mask=["left side", 0])}


def regional(left, right):
    """Nodes of two prompts, one for each half, named "regions"."""
    return {
        **SIDES,
        "left words": text(left),
        "right words": text(right),
        "left region": node(
            "ConditioningSetMask",
            conditioning=["left words", 0],
            mask=["left side", 0],
            strength=1.0,
            set_cond_area="default",
        ),
        "right region": node(
            "ConditioningSetMask",
            conditioning=["right words", 0],
            mask=["right side", 0],
            strength=1.0,
            set_cond_area="mask bounds",
        ),
        "regions": node("ConditioningCombine", conditioning_1=["left region", 0], conditioning_2=["right region", 0]),
    }


def patch(kind, **inputs):
    return {"patched": node(kind, model=["model", 0], **inputs)}, {"model": ["patched", 0]}


HOOKS = {
    "hook": node("CreateHookLora", lora_name=LORA, strength_model=1.0, strength_clip=0.5),
    "early": node("CreateHookKeyframe", strength_mult=1.0, start_percent=0.0),
    "late": node("CreateHookKeyframe", strength_mult=0.2, start_percent=0.6, prev_hook_kf=["early", 0]),
    "scheduled": node("SetHookKeyframes", hooks=["hook", 0], hook_kf=["late", 0]),
}
COMPANY = {
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
    "regional prompts": (
        regional("a striped red star on a yellow background", "a dotted green ring on a pink background"),
        {"positive": ["regions", 0]},
    ),
    "more masks of a prompt than pictures": (
        {
            **split(),
            "picture": node("MaskToImage", mask=["left side", 0]),
            "pictures": node("RepeatImageBatch", image=["picture", 0], amount=3),
            "masks": node("ImageToMask", image=["pictures", 0], channel="red"),
            "words": text(TARGET),
            "left": node(
                "ConditioningSetMask",
                conditioning=["words", 0],
                mask=["masks", 0],
                strength=1.0,
                set_cond_area="default",
            ),
            "both": node("ConditioningCombine", conditioning_1=["left", 0], conditioning_2=["source", 0]),
        },
        {"positive": ["both", 0]},
    ),
    "a range of steps": (
        {
            "other": text("a dotted yellow heart on a pink background"),
            "early": node("ConditioningSetTimestepRange", conditioning=["source", 0], start=0.0, end=0.6),
            "late": node("ConditioningSetTimestepRange", conditioning=["other", 0], start=0.6, end=1.0),
            "both": node("ConditioningCombine", conditioning_1=["early", 0], conditioning_2=["late", 0]),
        },
        {"positive": ["both", 0]},
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
    "perturbed attention": patch("PerturbedAttentionGuidance", scale=2.0),
    "FreeU": patch("FreeU_V2", b1=1.3, b2=1.4, s1=0.9, s2=0.2),
}


@pytest.mark.parametrize(("nodes", "sockets"), COMPANY.values(), ids=COMPANY)
def test_it_takes_effect_and_reconstructs_in_chunks_of_8(server, nodes, sockets):
    """The edit calls the model timestep by timestep, so it gives the picture back only if a chunk
    of 8 predicts what a chunk of 1 does."""
    changes = graph(**nodes, maps={**sockets, **FEW, "chunk": 8}, edit={**sockets, "skip": -1})
    history = server.queue(changes | edited("without"))
    assert difference(history) <= 1
    assert apart(history, "without", "round trip") > 20


def test_every_region_follows_its_own_prompt(server):
    nodes = regional("a striped red star on a yellow background", "a striped red star on a pink background")
    history = server.queue(graph(**nodes, maps={"skip": 2}, edit={"positive": ["regions", 0], "cfg": 3.0, "skip": -1}))
    blue = pictures(history, "out")[0, :, :, 2]
    assert blue[:, :80].mean() < blue[:, 112:].mean() - 40  # yellow has the less blue of the two
    blue = pictures(history, "round trip")[0, :, :, 2]
    assert abs(blue[:, :80].mean() - blue[:, 112:].mean()) < 20


def masked_edit(where=None, mask=None, **nodes):
    """Changes for an edit with a mask on the inverted latent, on the edit, or with none."""
    changes = {
        **nodes,
        "target": {"text": "a plain pink heart on a yellow background"},
        "maps": dict(FEW),
        "edit": {"cfg": 5.0, "skip": -1},
    }
    if where == "latent":
        changes["masked"] = node("SetLatentNoiseMask", samples=["latent", 0], mask=[mask, 0])
        changes["maps"]["latent"] = ["masked", 0]
    if where == "edit":
        changes["edit"]["mask"] = [mask, 0]
    return changes


WHERE = pytest.mark.parametrize("where", ["latent", "edit"])


def put_back(mask):
    """The source's latent put back where the mask is 1, shown as "put back"."""
    composite = node(
        "LatentCompositeMasked",
        destination=["edit", 0],
        source=["latent", 0],
        mask=[mask, 0],
        x=0,
        y=0,
        resize_source=False,
    )
    return {"composite": composite, **shown("put back", "composite")}


@WHERE
@pytest.mark.parametrize(
    ("mask", "outside", "inside"),
    [("left side", "right side", np.s_[:, :, :96]), ("right side", "left side", np.s_[:, :, 96:])],
)
def test_the_latent_outside_a_mask_and_its_inverse_is_the_source(server, where, mask, outside, inside):
    history = server.queue(graph(**masked_edit(where, mask, **SIDES)) | put_back(outside))
    assert apart(history, "put back", "out") <= 1
    changed = np.abs(pictures(history, "out") - pictures(history, "round trip"))
    assert changed[inside].mean() > 10
    assert changed.sum() < 1.3 * changed[inside].sum()  # the decoder's attention sees across the border


@WHERE
def test_a_mask_of_0_gives_the_source_and_one_of_1_the_whole_edit(server, where):
    free = server.queue(graph(**masked_edit()))
    whole = server.queue(graph(**masked_edit(where, "left side", **split(192))))
    assert difference(whole) > 20
    assert np.abs(pictures(whole, "out") - pictures(free, "out")).max() <= 1
    assert difference(server.queue(graph(**masked_edit(where, "nothing", **split())))) <= 1


@WHERE
def test_a_feathered_mask_changes_more_where_it_is_higher(server, where):
    feathered = {
        **split(192),
        "feathered": node("FeatherMask", mask=["left side", 0], left=0, top=0, right=192, bottom=0),
    }
    history = server.queue(graph(**masked_edit(where, "feathered", **feathered)))
    changed = np.abs(pictures(history, "out") - pictures(history, "round trip")).mean((0, 1, 3))
    quarters = [changed[i : i + 48].mean() for i in range(0, 192, 48)]
    assert quarters == sorted(quarters, reverse=True)
    assert quarters[0] > 4 * quarters[3]


@WHERE
def test_a_mask_of_another_size_is_scaled_to_the_picture(server, where):
    small = {
        "nothing": node("SolidMask", value=0.0, width=96, height=48),
        "part": node("SolidMask", value=1.0, width=48, height=48),
        "left side": node("MaskComposite", destination=["nothing", 0], source=["part", 0], x=0, y=0, operation="add"),
    }
    results = [
        pictures(server.queue(graph(**masked_edit(where, "left side", **nodes))), "out") for nodes in (split(), small)
    ]
    assert np.abs(results[0] - results[1]).max() <= 1


def test_a_mask_of_the_edit_and_one_of_the_inversion_hold_both(server):
    top = {
        "upper part": node("SolidMask", value=1.0, width=192, height=96),
        "upper side": node(
            "MaskComposite", destination=["nothing", 0], source=["upper part", 0], x=0, y=0, operation="add"
        ),
        "both": node(
            "MaskComposite", destination=["left side", 0], source=["upper side", 0], x=0, y=0, operation="multiply"
        ),
    }
    two = masked_edit("latent", "left side", **SIDES, **top)
    two["edit"]["mask"] = ["upper side", 0]
    results = [
        pictures(server.queue(graph(**changes)), "out")
        for changes in (two, masked_edit("edit", "both", **SIDES, **top))
    ]
    assert np.abs(results[0] - results[1]).max() <= 1


SCENES = {
    "second": node("DrawDemoScene", shape="ring", fill="dotted", color="red", background="pink", layout=9),
    "third": node("DrawDemoScene", shape="heart", fill="plain", color="yellow", background="green", layout=2),
}


def batched(name, sources):
    """Nodes that join three IMAGE sockets to a batch."""
    pair = node("ImageBatch", image1=sources[0], image2=sources[1])
    return {f"{name} 1, 2": pair, name: node("ImageBatch", image1=[f"{name} 1, 2", 0], image2=sources[2])}


def alone(i, latent, **inputs):
    """Nodes of an edit of one latent by itself, shown as "alone i"."""
    maps = {**graph()["maps"]["inputs"], **FEW, "latent": [latent, 0], "seed": i}
    return {
        f"maps {i}": node("EditFriendlyInvert", **maps),
        **edited(f"alone {i}", noise_maps=[f"maps {i}", 0], **inputs),
    }


@pytest.mark.parametrize("masks", [0, 1, 3])
def test_three_pictures_in_a_batch_are_edited_as_each_alone(server, masks):
    scenes = ["scene", *SCENES]
    nodes = {
        **SCENES,
        **batched("pictures", [[scene, 0] for scene in scenes]),
        **{f"shape {i}": node("MaskToImage", mask=[scene, 1]) for i, scene in enumerate(scenes)},
        **batched("shapes", [[f"shape {i}", 0] for i in range(3)]),
        "masks": node("ImageToMask", image=["shapes", 0], channel="red"),
        "masked": node("SetLatentNoiseMask", samples=["latent", 0], mask=["masks", 0] if masks == 3 else ["scene", 1]),
    }
    for i, scene in enumerate(scenes):
        nodes[f"latent {i}"] = node("VAEEncode", pixels=[scene, 0], vae=["model", 2])
        nodes[f"masked {i}"] = node(
            "SetLatentNoiseMask", samples=[f"latent {i}", 0], mask=[scene if masks == 3 else "scene", 1]
        )
        nodes |= alone(i, f"masked {i}" if masks else f"latent {i}", cfg=5.0)
    maps = {**FEW, "latent": ["masked" if masks else "latent", 0]}
    history = server.queue(
        graph(
            **nodes,
            latent={"pixels": ["pictures", 0]},
            target={"text": TARGET},
            maps=maps,
            edit={"cfg": 5.0, "skip": -1},
        )
    )
    result, each = pictures(history, "out"), np.concatenate([pictures(history, f"alone {i}") for i in range(3)])
    assert np.abs(result - each).max() <= 1
    assert (np.abs(result - pictures(history, "round trip")).max((1, 2, 3)) > 20).all()


def test_a_list_of_pictures_runs_through_once_for_each(server):
    nodes = {
        **SCENES,
        **batched("pictures", [["scene", 0], ["second", 0], ["third", 0]]),
        "list": node("RebatchImages", images=["pictures", 0], batch_size=1),
        "third latent": node("VAEEncode", pixels=["third", 0], vae=["model", 2]),
        **alone(0, "third latent"),
    }
    history = server.queue(
        graph(**nodes, latent={"pixels": ["list", 0]}, target={"text": TARGET}, maps=FEW, edit={"skip": -1})
    )
    assert len(pictures(history, "out")) == 3
    assert np.abs(pictures(history, "out")[2:] - pictures(history, "alone 0")).max() <= 1
    assert (np.abs(pictures(history, "out") - pictures(history, "round trip")).max((1, 2, 3)) > 20).all()


def test_a_list_of_prompts_edits_one_inversion_once_for_each(server):
    prompts = [TARGET, SOURCE, "a dotted green ring on a pink background"]
    nodes = {"prompts": node("TestLines", text="\n".join(prompts)), "last": text(prompts[2])} | edited(
        "alone", positive=["last", 0]
    )
    history = server.queue(graph(**nodes, target={"text": ["prompts", 0]}, maps=FEW, edit={"skip": -1}))
    first, second, third = pictures(history, "out")
    assert np.abs(second - pictures(history, "round trip")[0]).max() <= 1
    assert np.abs(third - pictures(history, "alone")[0]).max() <= 1
    assert np.abs(first - second).max() > 20


def test_every_scheduler_reconstructs(server):
    scheduler = server.object_info()["EditFriendlyInvert"]["input"]["required"]["scheduler"]
    names = scheduler[1].get("options") or scheduler[0]
    changes = graph(maps=FEW, edit={"skip": -1})
    for name in names:
        changes[f"maps of {name}"] = node("EditFriendlyInvert", **{**changes["maps"]["inputs"], "scheduler": name})
        changes |= edited(name, noise_maps=[f"maps of {name}", 0])
    changes |= edited("strong karras", noise_maps=["maps of karras", 0], cfg=7.0) | edited("strong usual", cfg=7.0)
    history = server.queue(changes)
    assert len(names) > 5
    for name in names:
        assert apart(history, name, "round trip") <= 1, name
    assert apart(history, "strong karras", "strong usual") > 20


BASIC = {"basic": node("BasicScheduler", model=["model", 0], scheduler="normal", steps=9, denoise=1.0)}
SIGMAS = {
    "the low part": {**BASIC, "levels": node("SplitSigmas", sigmas=["basic", 0], step=3)},
    "by denoise": {**BASIC, "levels": node("SplitSigmasDenoise", sigmas=["basic", 0], denoise=0.6)},
    "by hand": {"levels": node("TestSigmas", text="9, 5, 3.3, 1.8, 1, 0.5, 0.2, 0")},
    "by hand, not to 0": {"levels": node("TestSigmas", text="5, 3.3, 1.8, 1, 0.5, 0.2")},
}


@pytest.mark.parametrize("nodes", SIGMAS.values(), ids=SIGMAS)
def test_sigmas_from_elsewhere_reconstruct(server, nodes):
    output = 0 if nodes["levels"]["class_type"] == "TestSigmas" else 1
    changes = graph(**nodes, maps={"sigmas": ["levels", output], "skip": 1}, edit={"skip": -1})
    changes |= edited("without", noise_maps=["plain maps", 0], cfg=7.0) | edited("strong", cfg=7.0)
    changes |= {"plain maps": node("EditFriendlyInvert", **{**graph()["maps"]["inputs"], **FEW})}
    history = server.queue(changes)
    assert difference(history) <= 1
    assert apart(history, "strong", "without") > 20


def advanced(**changes):
    """The edit by the simple nodes, shown as "out", and by the advanced ones, shown as "advanced";
    a change replaces some inputs of a node."""
    push = {
        "model": ["model", 0],
        "vae": ["model", 2],
        "image": ["scene", 0],
        "mask": ["scene", 1],
        "color": "#20a030",
        "shading": "flat",
    }
    guider = {"model": ["model", 0], "negative": ["empty", 0]}
    nodes = {
        **split(),
        "masked": node("SetLatentNoiseMask", samples=["latent", 0], mask=["left side", 0]),
        "lora": node("LoraLoaderModelOnly", model=["model", 0], lora_name=LORA, strength_model=1.0),
        "blank": node("EmptyLatentImage", width=192, height=192, batch_size=1),
        "large": node("EmptyLatentImage", width=256, height=192, batch_size=1),
        "flow": node("ModelSamplingSD3", model=["model", 0], shift=3.0),
        "levels": node("BasicScheduler", model=["model", 0], scheduler="ddim_uniform", steps=FEW["steps"], denoise=1.0),
        "rising": node("FlipSigmas", sigmas=["levels", 0]),
        "source guider": node("CFGGuider", positive=["source", 0], cfg=3.5, **guider),
        "target guider": node("CFGGuider", positive=["target", 0], cfg=5.0, **guider),
        "advanced maps": node(
            "EditFriendlyInvertAdvanced",
            guider=["source guider", 0],
            sigmas=["levels", 0],
            latent=["latent", 0],
            skip=FEW["skip"],
            eta=1.0,
            solver="first_order",
            seed=0,
            chunk=8,
        ),
        "sockets": node("NoiseMapSampler", noise_maps=["advanced maps", 0], skip=-1),
        "along": node(
            "SamplerCustomAdvanced",
            noise=["sockets", 0],
            guider=["target guider", 0],
            sampler=["sockets", 1],
            sigmas=["sockets", 2],
            latent_image=["latent", 0],
        ),
        **shown("advanced", "along"),
    }
    for maps in ("maps", "advanced maps"):
        nodes[f"shifted {maps}"] = node("ShiftNoise", noise_maps=[maps, 0], x=3, y=1, fill="noise", seed=0)
        nodes[f"pushed {maps}"] = node(
            "ColorMaskEdit", noise_maps=[maps, 0], strength=0.5, start=70.0, end=20.0, **push
        )
    nodes = graph(**nodes, target={"text": TARGET}, maps=FEW, edit={"cfg": 5.0, "skip": -1})
    for name, change in changes.items():
        nodes[name.replace("_", " ")]["inputs"].update(change)
    return nodes


LORAS = {name: {"model": ["lora", 0]} for name in ("maps", "edit", "source_guider", "target_guider")}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="as inverted"),
        pytest.param({"edit": {"skip": 5}, "sockets": {"skip": 5}}, id="a later start"),
        pytest.param({"along": {"latent_image": ["blank", 0]}}, id="an empty latent"),
        pytest.param(
            {"maps": {"latent": ["masked", 0]}, "advanced_maps": {"latent": ["masked", 0]}},
            id="a mask on the inverted latent",
        ),
        pytest.param(
            {"edit": {"mask": ["left side", 0]}, "along": {"latent_image": ["masked", 0]}}, id="a mask on the edit"
        ),
        pytest.param(LORAS, id="a LoRA"),
        pytest.param(
            {"edit": {"noise_maps": ["shifted maps", 0]}, "sockets": {"noise_maps": ["shifted advanced maps", 0]}},
            id="a shift",
        ),
        pytest.param(
            {"edit": {"noise_maps": ["pushed maps", 0]}, "sockets": {"noise_maps": ["pushed advanced maps", 0]}},
            id="a colour",
        ),
    ],
)
def test_the_advanced_nodes_give_the_picture_of_the_simple_ones(server, changes):
    history = server.queue(advanced(**changes))
    assert apart(history, "advanced", "out") <= 1
    assert apart(history, "advanced", "round trip") > 20


GUIDERS = {
    "CFGGuider": (node("CFGGuider", model=["model", 0], positive=["source", 0], negative=["empty", 0], cfg=2.0), [10]),
    "BasicGuider": (node("BasicGuider", model=["model", 0], conditioning=["source", 0]), [5]),
    "DualCFGGuider": (
        node(
            "DualCFGGuider",
            model=["model", 0],
            cond1=["source", 0],
            cond2=["target", 0],
            negative=["empty", 0],
            cfg_conds=2.0,
            cfg_cond2_negative=3.0,
            style="regular",
        ),
        [15],
    ),
    "of another pack": (
        node("TestGuider", model=["model", 0], positive=["source", 0], negative=["empty", 0], cfg=3.5),
        [2] * 5,
    ),
}


@pytest.mark.parametrize("guider", [guider for guider, _ in GUIDERS.values()], ids=GUIDERS)
def test_any_guider_reconstructs_and_edits(server, guider):
    nodes = advanced(along={"guider": ["source guider", 0]}) | {"source guider": guider}
    history = server.queue(
        nodes | edited("with the simple nodes", noise_maps=["advanced maps", 0], positive=["source", 0])
    )
    assert apart(history, "advanced", "round trip") <= 1
    assert apart(history, "with the simple nodes", "round trip") > 20


@pytest.mark.parametrize(("guider", "sizes"), GUIDERS.values(), ids=GUIDERS)
def test_stock_guiders_take_many_timesteps_a_call_and_others_one(server, guider, sizes):
    """How many samples each call of the model has, of 5 timesteps."""
    recorded = {**guider, "inputs": {**guider["inputs"], "model": ["record", 0]}}
    nodes = advanced() | {"record": node("TestRecordCalls", model=["model", 0]), "source guider": recorded}
    wanted = {
        "latent",
        "scene",
        "model",
        "source",
        "target",
        "empty",
        "record",
        "source guider",
        "levels",
        "advanced maps",
    }
    nodes = {name: nodes[name] for name in wanted} | {
        "sizes": node("TestShowCalls", calls=["record", 1], noise_maps=["advanced maps", 0])
    }
    assert server.queue(nodes)["sizes"].text == [str(size) for size in sizes]


def test_the_sockets_fit_sampler_custom_too(server):
    inputs = {
        "model": ["model", 0],
        "positive": ["target", 0],
        "negative": ["empty", 0],
        "cfg": 5.0,
        "add_noise": True,
        "noise_seed": 3,
    }
    links = {"sampler": ["sockets", 1], "sigmas": ["sockets", 2], "latent_image": ["latent", 0]}
    history = server.queue(
        advanced() | {"custom": node("SamplerCustom", **inputs, **links)} | shown("by SamplerCustom", "custom")
    )
    assert apart(history, "by SamplerCustom", "out") <= 1
    assert apart(history, "by SamplerCustom", "round trip") > 20


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"along": {"sigmas": ["levels", 0]}},
            ["SamplerCustomAdvanced", "'sigmas'", "9 noise levels", "have 6", "SIGMAS output of NoiseMapSampler"],
        ),
        (
            {"along": {"latent_image": ["large", 0]}},
            ["SamplerCustomAdvanced", "'latent_image'", "24, 32", "24, 24", "of its size"],
        ),
        (
            {"target_guider": {"model": ["flow", 0]}},
            ["'ve' model", "'flow' model", "that the picture was inverted with"],
        ),
        ({"sockets": {"skip": 2}}, ["NoiseMapSampler", "'skip'", "from step 3 on", "got 2"]),
        ({"advanced_maps": {"skip": 8}}, ["EditFriendlyInvertAdvanced", "'skip'", "8 steps", "got 8"]),
        ({"advanced_maps": {"sigmas": ["rising", 0]}}, ["EditFriendlyInvertAdvanced", "'sigmas'", "decrease strictly"]),
        ({"advanced_maps": {"latent": ["blank", 0]}}, ["EditFriendlyInvertAdvanced", "'latent'", "empty"]),
    ],
    ids=lambda value: None if isinstance(value, list) else "-".join(value),
)
def test_a_wrong_socket_is_named(server, changes, words):
    with pytest.raises(PromptError) as caught:
        server.queue(advanced(**changes))
    assert all(word in caught.value.message for word in words), caught.value.message
