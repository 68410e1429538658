"""Every scheduler, noise levels and guiders from elsewhere, and ComfyUI's own sampler nodes."""

import numpy as np
import pytest

from tests.comfyui.rig.company import FEW, LORA, apart, edited, shown, split
from tests.comfyui.rig.graphs import TARGET, difference, graph, node, pictures, text
from tests.comfyui.rig.server import PromptError


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
        "off": node("TestScaledSigmas", sigmas=["sockets", 2], factor=1.01),
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


@pytest.mark.usefixtures("lora")
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
            ["SamplerCustomAdvanced", "'sigmas'", "9 noise levels", "have 6", "SIGMAS output of Noise Map Sampler"],
        ),
        (
            {"along": {"sigmas": ["off", 0]}},
            ["SamplerCustomAdvanced", "'sigmas'", "SIGMAS output of Noise Map Sampler"],
        ),
        (
            {"along": {"latent_image": ["large", 0]}},
            ["SamplerCustomAdvanced", "'latent_image'", "32 x 24 latent cells", "24 x 24", "of its size"],
        ),
        (
            {"target_guider": {"model": ["flow", 0]}},
            ["'ve' model", "'flow' model", "that the picture was inverted with"],
        ),
        ({"sockets": {"skip": 2}}, ["Noise Map Sampler", "'skip'", "made with skip 3", "got 2"]),
        ({"advanced_maps": {"skip": 8}}, ["Edit-Friendly Invert (Advanced)", "'skip'", "8 steps", "got 8"]),
        (
            {"advanced_maps": {"sigmas": ["rising", 0]}},
            ["Edit-Friendly Invert (Advanced)", "'sigmas'", "decrease strictly"],
        ),
        ({"advanced_maps": {"latent": ["blank", 0]}}, ["Edit-Friendly Invert (Advanced)", "'latent'", "empty"]),
    ],
    ids=lambda value: None if isinstance(value, list) else "-".join(f"{key} {next(iter(value[key]))}" for key in value),
)
def test_a_wrong_socket_is_named(server, changes, words):
    with pytest.raises(PromptError) as caught:
        server.queue(advanced(**changes))
    assert all(word in caught.value.message for word in words), caught.value.message


# Guidance from the source prompt.


@pytest.mark.parametrize("inverted_at", [1.0, 3.5])
def test_guidance_from_the_source_to_itself_gives_the_picture_back_at_any_cfg(server, inverted_at):
    nodes = graph(maps={"cfg": inverted_at}, edit={"cfg": 9.0, "source": ["source", 0]})
    assert difference(server.queue(nodes)) <= 1
    assert difference(server.queue(graph(maps={"cfg": inverted_at}, edit={"cfg": 9.0}))) > 8


@pytest.mark.parametrize("inverted_at", [1.0, 3.5])
def test_guidance_from_the_source_is_the_dual_guider_of_comfyui(server, inverted_at):
    dual = node(
        "DualCFGGuider",
        model=["model", 0],
        cond1=["target", 0],
        cond2=["source", 0],
        negative=["empty", 0],
        cfg_conds=4.0,
        cfg_cond2_negative=inverted_at,
        style="regular",
    )
    target = text(TARGET)
    nodes = graph(target=target, maps={"cfg": inverted_at}, edit={"cfg": 4.0, "source": ["source", 0]}) | {
        "dual": dual,
        "along": node("NoiseMapSampler", noise_maps=["maps", 0], skip=4),
        "stock": node(
            "SamplerCustomAdvanced",
            noise=["along", 0],
            guider=["dual", 0],
            sampler=["along", 1],
            sigmas=["along", 2],
            latent_image=["latent", 0],
        ),
        "stock picture": node("VAEDecode", samples=["stock", 0], vae=["model", 2]),
        "stock out": node("PreviewImage", images=["stock picture", 0]),
    }
    history = server.queue(nodes)
    ours, theirs = (pictures(history, name) for name in ("out", "stock out"))
    assert np.abs(ours - theirs).max() <= 1
    assert difference(history) > 8


def test_guidance_from_the_source_keeps_what_patches_do_to_the_inversion(server):
    """A patch of the guided prediction, and one inside the transformer, which makes us ask for the
    target in a call of its own."""
    patched = {
        "rescaled": node("RescaleCFG", model=["model", 0], multiplier=0.7),
        "patched": node("PerturbedAttentionGuidance", model=["rescaled", 0], scale=2.0),
    }
    where = {"model": ["patched", 0]}
    nodes = graph(maps=where, edit={**where, "cfg": 6.0, "source": ["source", 0]}) | patched
    assert difference(server.queue(nodes)) <= 1


def test_maps_that_do_not_know_their_guidance_are_refused_for_it(server):
    dual = GUIDERS["DualCFGGuider"][0]
    nodes = advanced(along={"guider": ["source guider", 0]}) | {"source guider": dual}
    nodes |= edited("simple", noise_maps=["advanced maps", 0], source=["source", 0])
    with pytest.raises(PromptError) as caught:
        server.queue(nodes)
    for words in ("Noise Map Edit", "'noise_maps'", "do not know the cfg of their inversion", "Invert again"):
        assert words in caught.value.message


def test_the_more_faithful_the_nearer_to_the_source(server):
    away = []
    for strength in (0.0, 0.05, 1.0):
        nodes = graph(target=text(TARGET), edit={"cfg": 5.0, "faithfulness": strength})
        history = server.queue(nodes)
        away.append(np.abs(pictures(history, "out") - pictures(history, "round trip")).mean())
    assert away[0] > 1.05 * away[1]
    assert away[1] > 1.05 * away[2]
    refused = graph(high=node("PrimitiveFloat", value=-0.5), edit={"faithfulness": ["high", 0]})
    with pytest.raises(PromptError, match="Noise Map Edit, input 'faithfulness'.*0 or more; got -0.5"):
        server.queue(refused)
