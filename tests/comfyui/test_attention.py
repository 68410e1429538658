"""Attention control in ComfyUI: against explicit attention maps in ComfyUI's own UNet, among other
patches, and beside diffusers; numbers from ComfyUI's own process."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close

from ddpm_core import NoiseMaps, replay
from ddpm_core.attention.local_blend import Blending, LocalBlend
from ddpm_core.attention.pix2pix_zero import sentences
from ddpm_core.attention.prompt_to_prompt import Control
from ddpm_core.attention.words import align
from ddpm_core.demo.model import FOLDER
from ddpm_core.models.attention import controlled
from ddpm_core.models.stable_diffusion import Pipeline
from tests.comfyui.rig.graphs import difference, graph, node, pictures
from tests.comfyui.rig.server import PACK, RIG

SOURCE, TARGET = "a striped red star on a blue background", "a dotted green heart on a plain blue background"


@pytest.fixture(scope="module")
def inside(server, tmp_path_factory):
    """(numbers, texts, noise maps) of attention_in_process.py."""
    folder = tmp_path_factory.mktemp("attention")
    path, maps = folder / "out.safetensors", folder / "maps.safetensors"
    server.run_script(RIG / "attention_in_process.py", PACK, path, maps)
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata(), NoiseMaps.load(maps)


@pytest.mark.parametrize("name", ["p2p", "low memory", "an adapter", "a long negative prompt", "regions", "masactrl"])
def test_it_is_that_of_explicit_maps(inside, name):
    """At three steps: in both windows, in one, and after them; 3 pictures."""
    numbers, texts, _ = inside
    assert json.loads(texts["chunks"])[0] > 1
    ours, expected = numbers[f"{name} ours"], numbers[f"{name} expected"]
    assert_close(ours, expected, rtol=0, atol=2e-4 * expected.abs().max().item())


def test_of_every_step_nothing_is_kept(inside):
    assert inside[0]["kept"].tolist() == [0] * len(inside[0]["kept"])


@pytest.mark.parametrize(
    "name",
    [
        "same",
        "same from the source",
        "same in an area",
        "same with perturbed attention",
        "same led from the negative",
        "same by no strength",
    ],
)
def test_the_same_prompt_gives_the_picture_back(inside, name):
    picture = inside[0]["picture"]
    assert_close(inside[0][name], picture, rtol=0, atol=1e-4 * picture.abs().max().item())


@pytest.mark.parametrize("name", ["off", "off from the source", "late"])
def test_a_control_that_is_off_changes_no_bit(inside, name):
    with_control, without = inside[0][name]
    assert torch.equal(with_control, without)
    assert (inside[0]["on"][0] - inside[0]["on"][1]).abs().max() > 0.1


@pytest.mark.parametrize("name", ["edit", "edit with a blend", "edit from the source"])
def test_an_edit_is_the_same_in_diffusers(inside, name):
    numbers, _, maps = inside
    model = Pipeline.load(FOLDER)
    words = align(model.tokens(SOURCE), model.tokens(TARGET))
    options = {} if "blend" in name else {"weights": {"heart": 2.0, "green": 0.5}, "windows": {"dotted": 0.2}}
    control, blending = Control(words, 0.7, 0.3, **options), None
    if "blend" in name:
        blending = Blending(LocalBlend(words, ("star", "heart")), len(maps.residuals), tuple(maps.latents.shape[-2:]))
    source = 3.0 if "source" in name else None
    denoise = controlled(
        model, maps, SOURCE, TARGET, control=control, blending=blending, guidance=3.0, source_guidance=source
    )
    there = replay(denoise, maps, local=None if blending is None else blending.mask)
    scale = model.pipe.vae.config.scaling_factor
    assert_close(numbers[name] * scale, there, rtol=0, atol=2e-3 * there.abs().max().item())


def test_the_source_is_asked_only_in_the_windows(inside):
    """3 pictures; the source's row in 6 of the 8 steps (0.7), two guidance branches in all."""
    assert inside[0]["sizes"].tolist() == [3, 6] * 6 + [6] * 2


def controlled_by_a_net(prompt):
    inputs = {"negative": ["empty", 0], "control_net": ["net", 0], "image": ["scene", 0]}
    window = {"strength": 0.5, "start_percent": 0.0, "end_percent": 0.6}
    return node("ControlNetApplyAdvanced", positive=prompt, **inputs, **window)


def test_with_a_controlnet_on_both_prompts_the_picture_comes_back(server):
    settings = {"cross": 0.7, "self_attention": 0.3, "largest": "latent / 2", "weights": "", "windows": ""}
    blend = {"local_blend": "star", "blend_threshold": 0.3}
    nodes = {
        "net": node("TestControlNet", model=["model", 0]),
        "pair": node("PromptPair", clip=["model", 1], source_text=SOURCE, target_text=SOURCE),
        "there": controlled_by_a_net(["pair", 0]),
        "here": controlled_by_a_net(["pair", 1]),
        "p2p": node("PromptToPrompt", source=["there", 0], words=["pair", 2], **settings, **blend),
    }
    maps = {"positive": ["there", 0], "negative": ["there", 1]}
    edit = {"positive": ["here", 0], "negative": ["there", 1], "attention": ["p2p", 0]}
    again = graph(**nodes, maps=maps, edit=edit)
    assert difference(server.queue(again)) <= 1
    without = server.queue(graph(**nodes, maps=maps, edit={**edit, "positive": ["pair", 1], "attention": ["p2p", 0]}))
    assert difference(without) > 20


REFUSED = {
    "another pair": ("attention", "not the target of the Prompt Pair", "Connect the target output"),
    "a prompt without words": ("attention", "not the target of the Prompt Pair"),
    "another source": ("attention", "not the source of the Prompt Pair"),
    "joined tokens": ("attention", "and 16 in its Prompt Pair", "Do not join it"),
    "HyperTile": ("model", "another patch", "Take HyperTile, ToMe or the like off"),
    "merged queries": ("model", "another patch", "Take HyperTile, ToMe or the like off"),
    "a context window": ("model", "context windows"),
    "a blend in an area": ("attention", "has an area", "use a mask"),
    "an unknown word": ("weights", "'cat' does not occur", "dotted, green, heart"),
    "an unknown word of a blend": ("local_blend", "'cat' does not occur"),
    "no number": ("windows", "got 'heart 0.5'"),
    "a share above 1": ("windows", "got 1.5"),
    "a model without such layers": ("attention", "works with Stable Diffusion 1, 2 and XL", "Disconnect"),
    "no arrow": ("sentences", "one line ->", "got 0"),
    "another text encoder's": ("conditioning", "conditioning of 7"),
    "no CLIP": ("clip", "no CLIP", "t5xxl"),
    "no words": ("words", "got dict", "Prompt Pair"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_name(inside, name):
    socket, *said = REFUSED[name]
    text = inside[1][name]
    assert f"input '{socket}'" in text
    assert all(words in text for words in said)


def test_a_patch_of_what_is_not_needed_is_not_refused(inside):
    assert inside[1]["merged queries that are not needed"] == ""


@pytest.mark.parametrize("name", ["SD 1", "SD 2", "SDXL", "SD3", "Flux"])
def test_words_are_found_in_the_tokens_of_text_encoders(inside, name):
    """Brackets and weights are no words; a word may take several tokens."""
    words, start, end, length = json.loads(inside[1][f"words of {name}"])
    assert [text for text, _ in words] == ["a", "dachshund", ",", "axolotl", "sits"]
    assert (start, length) == ([0], 77)
    assert [p for _, at in words for p in at] == list(range(1, end[0]))
    assert max(len(at) for _, at in words) > 1


def test_words_that_a_tokenizer_cuts_or_codes_are_found(inside):
    cafe, years, shirt = json.loads(inside[1]["cut words"])
    assert cafe[0] == 2
    assert len(years) >= 2
    assert len(shirt) >= 3
    assert shirt[0] == years[-1] + 1


def test_words_are_found_in_several_chunks(inside):
    words, start, end, length = json.loads(inside[1]["words of two chunks"])
    assert [text for text, _ in words] == "a red star on a blue background".split() * 4
    assert length == inside[0]["length of two chunks"]
    assert start == list(range(0, length, length // len(start)))
    assert len(start) > 1
    taken = sorted([*start, *end, *(p for _, at in words for p in at)])
    assert len(taken) == len(set(taken))


def test_mutual_self_attention_reaches_the_edit_of_a_queued_workflow(server):
    control = node("MutualSelfAttention", source=["source", 0], start=0.0, layer=0.0)
    controlled = {"control": control, "edit": {"attention": ["control", 0]}}
    heart = {"text": SOURCE.replace("star", "heart")}
    with_it, without = (pictures(server.queue(graph(target=heart, **more)), "out") for more in (controlled, {}))
    assert np.abs(with_it - without).max() > 20
    assert difference(server.queue(graph(**controlled))) <= 1


def test_a_direction_is_the_difference_of_the_means(inside):
    """Twice mean(targets) - mean(sources), in every chunk, and in what is pooled."""
    numbers, texts, _ = inside
    sources, targets = numbers["sentences"][:2], numbers["sentences"][2:]
    way = targets.mean(0, keepdim=True) - sources.mean(0, keepdim=True)
    assert_close(numbers["moved"], numbers["moved from"] + 2 * way, rtol=0, atol=1e-5)
    assert_close(numbers["moved pooled"], 2 * way.mean(1), rtol=0, atol=1e-5)
    chunks = numbers["two chunks moved by"].shape[1] // way.shape[1]
    assert chunks > 1
    assert_close(numbers["two chunks moved by"], way.repeat(1, chunks, 1), rtol=0, atol=1e-5)
    assert torch.equal(numbers["not moved"], numbers["moved from"])
    assert torch.equal(numbers["moved by a file"], numbers["moved"])
    assert json.loads(texts["entry"]) == 1
    apart = [(one - numbers["moved from"]).abs().max() for one in numbers["ready"]]
    assert len(apart) == 2
    assert min(apart) > 0.01


def test_the_ready_directions_have_as_many_different_sentences_on_each_side():
    texts = [path.read_text("ascii") for path in sorted((PACK / "nodes" / "directions").glob("*.txt"))]
    assert len(texts) > 5
    for sources, targets in map(sentences, texts):
        assert len(sources) == len(targets) >= 8
        assert not set(sources) & set(targets)


@pytest.mark.parametrize("name", ["a file elsewhere", "no file"])
def test_a_file_that_is_not_in_the_input_folder_is_refused(inside, name):
    assert all(words in inside[1][name] for words in ("input 'file'", "input folder", "ends in .txt"))
