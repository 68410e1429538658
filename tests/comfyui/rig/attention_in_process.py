"""Run with ComfyUI's Python, in ComfyUI's folder: attention control against explicit attention maps
in ComfyUI's own UNet, and what else runs in it.

Usage: attention_in_process.py PACK OUT.safetensors MAPS.safetensors. The file's tensors are numbers,
its metadata texts; MAPS are the noise maps of a picture, for the same edit elsewhere.
"""

import gc
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from comfyui_process import arguments, led_from_the_negative, load_pack

# isort: split
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.text_encoders.flux
import comfy.text_encoders.sd2_clip
import comfy.text_encoders.sd3_clip
import folder_paths
import torch
from comfy.ldm.modules.attention import CrossAttention, optimized_attention
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from safetensors.torch import save_file

pack_folder, wanted, maps_file = arguments
SOURCE, TARGET = "a striped red star on a blue background", "a dotted green heart on a plain blue background"
EDIT = "NoiseMapEdit"
SENTENCES = "a red star\na plain red star\n->\na red heart\na plain red heart\na striped red heart"
SETTINGS = {"eta": 1.0, "solver": "first_order", "scheduler": "ddim_uniform", "seed": 0, "chunk": 8}
STEPS, SKIP, SIZE = 10, 2, (24, 16)
EXECUTED = STEPS - SKIP
P2P = {"cross": 0.7, "self_attention": 0.3, "largest": "latent / 4"}
WORDS = {"weights": "heart: 2\ngreen: 0.5", "windows": "dotted: 0.2"}


@contextmanager
def replaced(owner, name, value):
    real = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, real)


class Explicit:
    """One call of the UNet by explicit attention maps, whose first rows are the source's.

    change(maps, cross) edits the maps (rows, heads, Lq, Lk); keys(x, layer) says what keys and
    values of self-attention are made of; ``add`` is what another patch adds to cross-attention.
    """

    def __init__(self, change, add=None, keys=None):
        self.change, self.add, self.keys, self.layer = change, add, keys, 0

    def forward(self, layer, x, context=None, value=None, mask=None, transformer_options=None):
        cross = context is not None
        rows = x if not cross else context
        if not cross:
            if self.keys is not None:
                rows = self.keys(x, self.layer)
            self.layer += 1
        q, k, v = (
            linear(part).unflatten(-1, (layer.heads, -1)).transpose(1, 2).double()
            for linear, part in ((layer.to_q, x), (layer.to_k, rows), (layer.to_v, rows))
        )
        maps = self.change((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1), cross)
        out = (maps @ v).transpose(1, 2).flatten(2).to(x)
        if cross and self.add is not None:
            out = out + self.add(layer.to_q(x))
        return layer.to_out(out)


def x0_hats(inner_model, rows, sigma, explicit):
    """x0_hat of each (x, context) with equally long contexts, in one call by explicit maps."""
    states = torch.cat([x for x, _ in rows])
    contexts = torch.cat([context.expand(len(x), -1, -1) for x, context in rows])

    def forward(self, x, context=None, value=None, mask=None, transformer_options=None):
        return explicit.forward(self, x, context, value, mask)

    with replaced(CrossAttention, "forward", forward):
        return inner_model.apply_model(states, sigma.repeat(len(rows)), c_crossattn=contexts).chunk(len(rows))


def context_of(conds):
    return conds[0]["model_conds"]["c_crossattn"].cond


def unedited(maps, cross):
    return maps


def states(nodes, model, maps, guider, attention, oracle, steps):
    """(ours, expected) at some steps of a run, away from the path: (steps, B, C, h, w) each."""
    host, guided = nodes.host.attention, nodes.host.guided
    ours, expected = [], []
    guider.inner_set_conds({host.SOURCE: attention.source})

    def work(running):
        attending = host.Attending(EDIT, running, maps, attention)
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            path = maps.latents[step].float()
            x = path + 0.3 * torch.randn(path.shape, generator=generator)
            sigma = maps.sigmas[step].float().repeat(len(x))
            ours.append(attending.denoise(x, sigma))
            expected.append(oracle(running.guider, step, path, x, sigma))
        gc.disable()
        attending.denoise(x, sigma)
        kept.append(sum(type(thing) is host._Call for thing in gc.get_objects()))
        gc.enable()
        return running.latent

    latent = nodes.host.wires.maps_latent(maps, model)
    guided.run(guider, latent, maps.sigmas, work, 0)
    return torch.stack(ours), torch.stack(expected)


kept = []  # how many steps' captured attention is alive after the last step of a run
with torch.inference_mode():
    nodes = load_pack(pack_folder)
    model, clip, _ = nodes.demo.LoadDemoModel.execute().args
    empty = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    source, target, words = nodes.attention.PromptPair.execute(clip, SOURCE, TARGET).args
    picture = torch.randn(3, 4, *SIZE, generator=torch.Generator().manual_seed(0))
    numbers, texts = {}, {}

    def inverted(model, positive, negative=empty, cfg=3.0, latent=picture, steps=STEPS, skip=SKIP):
        invert, given = nodes.invert.EditFriendlyInvert, {"samples": latent}
        settings = {"steps": steps, "skip": skip, "cfg": cfg, **SETTINGS}
        return invert.execute(model, positive, negative, given, **settings).args[0]

    def edited(model, positive, maps, negative=empty, cfg=3.0, **more):
        edit = nodes.edit.NoiseMapEdit
        return edit.execute(model, positive, negative, maps, cfg=cfg, skip=-1, **more).args[0]["samples"]

    def p2p(source=source, words=words, **changes):
        return nodes.attention.PromptToPrompt.execute(source, words, **{**P2P, **changes}).args[0]

    def mutual(source=source, start=0.2, layer=0.5, **more):
        return nodes.attention.MutualSelfAttention.execute(source, start, layer, **more).args[0]

    def guider(model=model, positive=target, negative=empty):
        return nodes.host.guided.make_guider(model, positive, negative, 3.0)

    maps = inverted(model, source)
    maps.save(maps_file)
    layers = len(nodes.host.attention.blocks_of(model))
    control = p2p(**WORDS).controls.control

    def by_maps(step):
        """The published edit of explicit maps at a step; the first 3 rows are the source's, the last 3
        the target's."""
        taken, own = (part.double() for part in control.coefficients(step, EXECUTED))

        def change(maps, cross):
            maps = maps.clone()
            if cross and step < 0.7 * EXECUTED:
                maps[-3:] = maps[:3] @ taken + maps[-3:] * own
            if not cross and step < 0.3 * EXECUTED and maps.shape[-1] <= SIZE[0] * SIZE[1] / 16:
                maps[-3:] = maps[:3]
            return maps

        return change

    def expected(guider, step, path, x, sigma, add=None, change=None, keys=None):
        prompts = (guider.conds[name] for name in (nodes.host.attention.SOURCE, "negative", "positive"))
        s, u, t = map(context_of, prompts)
        explicit = Explicit(change or by_maps(step), add, keys)
        _, u, t = x0_hats(guider.inner_model, [(path, s), (x, u), (x, t)], sigma, explicit)
        return u + 3.0 * (t - u)

    def compare(name, guider, attention, oracle, steps=(0, 4, 6)):
        numbers[f"{name} ours"], numbers[f"{name} expected"] = states(
            nodes, model, maps, guider, attention, oracle, steps
        )

    compare("p2p", guider(), p2p(**WORDS), expected)
    with replaced(type(model.model), "memory_required", lambda *args, **more: float("inf")):
        compare("low memory", guider(), p2p(**WORDS), expected)

    # Another patch in every place, and in one place by its transformer's number.
    class Adapter:
        """As adapters do it: an object that others may add to, called with the projections."""

        def add(self, *args):
            raise AssertionError("nothing is added to it")

        def __call__(self, q, k, v, extra_options):
            return optimized_attention(q, k, v, extra_options["n_heads"]) + 0.3 * torch.tanh(q)

    adapted = model.clone()
    for kind, number, index in nodes.host.attention.blocks_of(model):
        place = {} if number % 2 else {"transformer_index": index}
        adapted.set_model_attn2_replace(Adapter(), kind, number, **place)

    def with_adapter(*args):
        return expected(*args, add=lambda q: 0.3 * torch.tanh(q))

    compare("an adapter", guider(adapted), p2p(**WORDS), with_adapter)

    # A negative prompt of two chunks: the shorter prompt's tokens are repeated in one batch.
    long = clip.encode_from_tokens_scheduled(clip.tokenize(" ".join(["a red star on a blue background"] * 6)))
    texts["chunks"] = json.dumps([long[0][0].shape[1] // target[0][0].shape[1]])

    def long_negative(guider, step, path, x, sigma):
        s, t = (context_of(guider.conds[name]) for name in (nodes.host.attention.SOURCE, "positive"))
        _, t = x0_hats(guider.inner_model, [(path, s), (x, t)], sigma, Explicit(by_maps(step)))
        (u,) = x0_hats(guider.inner_model, [(x, context_of(guider.conds["negative"]))], sigma, Explicit(unedited))
        return u + 3.0 * (t - u)

    compare("a long negative prompt", guider(negative=long), p2p(**WORDS), long_negative)

    # Two prompts, each with a mask: the control is about one of them.
    left = torch.zeros(1, *SIZE)
    left[..., : SIZE[1] // 2] = 1
    other = clip.encode_from_tokens_scheduled(clip.tokenize("a plain yellow circle on a green background"))

    def masked(conditioning, mask):
        return [[embedding, {**entry, "mask": mask, "mask_strength": 1.0}] for embedding, entry in conditioning]

    def regional(guider, step, path, x, sigma):
        o = context_of(guider.conds["positive"][1:])
        s, u, t = (context_of(guider.conds[n]) for n in (nodes.host.attention.SOURCE, "negative", "positive"))
        _, u, t = x0_hats(guider.inner_model, [(path, s), (x, u), (x, t)], sigma, Explicit(by_maps(step)))
        (o,) = x0_hats(guider.inner_model, [(x, o)], sigma, Explicit(unedited))
        both = t * left + o * (1 - left)
        return u + 3.0 * (both - u)

    compare("regions", guider(positive=masked(target, left) + masked(other, 1 - left)), p2p(**WORDS), regional)

    # MasaCtrl: keys and values of the source from a step and a layer on.
    def keys_of_the_source(step):
        def keys(x, layer):
            if step < 0.2 * EXECUTED or layer < 0.5 * layers:
                return x
            return torch.cat((x[:-3], x[:3]))

        return keys

    def masactrl(guider, step, path, x, sigma):
        return expected(guider, step, path, x, sigma, change=unedited, keys=keys_of_the_source(step))

    compare("masactrl", guider(), mutual(), masactrl)
    numbers["kept"] = torch.tensor(kept)

    # The same prompt gives the picture back, with all of it at once.
    same_source, same, same_words = nodes.attention.PromptPair.execute(clip, SOURCE, SOURCE).args
    everything = mutual(same_source, attention=p2p(same_source, same_words, local_blend="star"))
    of_same = inverted(model, same_source)
    numbers["picture"] = picture
    numbers["same"] = edited(model, same, of_same, attention=everything)
    numbers["same from the source"] = edited(model, same, of_same, source=same_source, cfg=5.0, attention=everything)
    area = [[e, {**entry, "area": (16, 8, 4, 4), "strength": 1.0}] for e, entry in same]
    area_source = [[e, {**entry, "area": (16, 8, 4, 4), "strength": 1.0}] for e, entry in same_source]
    in_area = mutual(area_source + other, attention=p2p(area_source + other, same_words))
    of_area = inverted(model, area_source + other)
    numbers["same in an area"] = edited(model, area + other, of_area, attention=in_area)
    perturbed = PerturbedAttentionGuidance.execute(model, 2.0).args[0]
    of_perturbed = inverted(perturbed, same_source)
    numbers["same with perturbed attention"] = edited(perturbed, same, of_perturbed, attention=everything)

    both = model.clone()
    for kind, number, _ in nodes.host.attention.blocks_of(model):
        both.set_model_attn2_replace(led_from_the_negative, kind, number)
    numbers["same led from the negative"] = edited(both, same, inverted(both, same_source), attention=everything)
    numbers["same by no strength"] = edited(
        model, target, maps, source=source, cfg=0.0, attention=p2p(local_blend="star")
    )

    # A control that is off changes no bit; one that is on does.
    off = p2p(cross=0.0, self_attention=0.0)
    plain, plain_from_source = edited(model, target, maps), edited(model, target, maps, source=source)
    numbers["off"] = torch.stack([edited(model, target, maps, attention=off), plain])
    numbers["off from the source"] = torch.stack(
        [edited(model, target, maps, source=source, attention=off), plain_from_source]
    )
    late = mutual(start=1.0)
    numbers["late"] = torch.stack([edited(model, target, maps, attention=late), plain])
    numbers["on"] = torch.stack([edited(model, target, maps, attention=p2p()), plain])

    # The whole edit, for the same one elsewhere, and how many samples each of its calls has.
    sizes = []
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    numbers["edit"] = edited(model, target, maps, attention=p2p(**WORDS))
    hook.remove()
    numbers["sizes"] = torch.tensor(sizes)
    numbers["edit with a blend"] = edited(model, target, maps, attention=p2p(local_blend="star, heart"))
    numbers["edit from the source"] = edited(model, target, maps, source=source, attention=p2p(**WORDS))

    # Words in the tokens of several text encoders, and in several chunks with weights.
    encoders = {
        "SD 1": comfy.sd1_clip.SD1Tokenizer,
        "SD 2": comfy.text_encoders.sd2_clip.SD2Tokenizer,
        "SDXL": comfy.sdxl_clip.SDXLTokenizer,
        "SD3": comfy.text_encoders.sd3_clip.SD3Tokenizer,
        "Flux": comfy.text_encoders.flux.FluxTokenizer,
    }
    for name, kind in encoders.items():
        tokenizer = kind()
        tokenized = tokenizer.tokenize_with_weights("a (dachshund, axolotl:1.3) sits")
        found = nodes.host.words.tokens_of("PromptPair", SimpleNamespace(tokenizer=tokenizer), tokenized)
        texts[f"words of {name}"] = json.dumps([found.words, found.start, found.end, found.length])
    cut = clip.tokenize("a caf\u00e9, a 1920s T-shirt")
    found = nodes.host.words.tokens_of("PromptPair", clip, cut)
    texts["cut words"] = json.dumps([found.positions(word) for word in ("caf\u00e9", "1920s", "t-shirt")])
    chunks = nodes.host.words.tokens_of("PromptPair", clip, clip.tokenize("a red star on a blue background " * 4))
    texts["words of two chunks"] = json.dumps([chunks.words, chunks.start, chunks.end, chunks.length])
    size = clip.encode_from_tokens(clip.tokenize("a red star on a blue background " * 4)).shape[1]
    numbers["length of two chunks"] = torch.tensor(size)

    # A direction between sentences.
    def moved(conditioning=source, clip=clip, **changes):
        settings = {"ready": "own sentences", "sentences": SENTENCES, "file": "", "strength": 2.0, **changes}
        return nodes.direction.EditDirection.execute(clip, conditioning, **settings).args[0]

    class Pooled:
        """A text encoder with a pooled embedding that says something."""

        tokenize = staticmethod(clip.tokenize)

        def encode_from_tokens(self, tokens, return_pooled=False):
            hidden = clip.encode_from_tokens(tokens)
            return hidden, hidden.mean(1)

    embedded = [clip.encode_from_tokens(clip.tokenize(one)) for one in SENTENCES.split("\n") if one != "->"]
    numbers["sentences"] = torch.cat(embedded)
    with_pooled = [[source[0][0], {"pooled_output": torch.zeros(1, embedded[0].shape[-1]), "kept": 1}]]
    (hidden, entry), *_ = moved(with_pooled, Pooled())
    numbers |= {"moved from": source[0][0], "moved": hidden, "moved pooled": entry["pooled_output"]}
    texts["entry"] = json.dumps(entry["kept"])
    numbers["not moved"] = moved(strength=0.0)[0][0]
    twice = clip.encode_from_tokens_scheduled(clip.tokenize("a red star on a blue background " * 4))
    numbers["two chunks moved by"] = moved(twice, strength=1.0)[0][0] - twice[0][0]
    with tempfile.TemporaryDirectory() as folder, replaced(folder_paths, "input_directory", folder):
        Path(folder, "mine.txt").write_text(SENTENCES, "utf-8")
        numbers["moved by a file"] = moved(file="mine.txt", sentences="")[0][0]
        for name, file in (("a file elsewhere", "../mine.txt"), ("no file", "other.txt")):
            try:
                moved(file=file)
            except ValueError as error:
                texts[name] = str(error)
    ready = nodes.direction.EditDirection.define_schema().inputs[2].options
    numbers["ready"] = torch.stack([moved(ready=name)[0][0] for name in ready if name.startswith("demo")])

    # What is refused.
    def refusal(name, run):
        try:
            run()
            texts[name] = ""
        except ValueError as error:
            texts[name] = str(error)

    tiled, merged = HyperTile().execute(model, 32, 1, 3, False)[0], model.clone()
    merged.set_model_attn1_patch(lambda q, k, v, extra: (q[:, ::2], k, v))  # as ToMe does it
    merged.set_model_attn1_output_patch(lambda out, extra: out.repeat_interleave(2, 1))
    window = model.clone()
    window.model_options["context_handler"] = object()
    wide = p2p(largest="latent / 2", self_attention=1.0)
    joined = [[torch.cat((e, e[:, :5]), 1), entry] for e, entry in target]
    refusal("another pair", lambda: edited(model, same, maps, attention=p2p()))
    refusal("a prompt without words", lambda: edited(model, other, maps, attention=p2p()))
    refusal("another source", lambda: edited(model, target, maps, attention=p2p(source=other)))
    refusal("joined tokens", lambda: edited(model, joined, maps, attention=p2p()))
    refusal("HyperTile", lambda: edited(tiled, target, maps, attention=wide))
    refusal("merged queries", lambda: edited(merged, target, maps, attention=wide))
    refusal("merged queries that are not needed", lambda: edited(merged, target, maps, attention=mutual()))
    refusal("a context window", lambda: edited(window, target, maps, attention=p2p()))
    refusal("a blend in an area", lambda: edited(model, area, of_area, attention=everything))
    refusal("an unknown word", lambda: p2p(weights="cat: 2"))
    refusal("an unknown word of a blend", lambda: p2p(local_blend="cat"))
    refusal("no number", lambda: p2p(windows="heart 0.5"))
    refusal("a share above 1", lambda: p2p(windows="heart: 1.5"))
    other_kind = SimpleNamespace(get_model_object=lambda name: torch.nn.Linear(1, 1))
    run_of_it = SimpleNamespace(guider=SimpleNamespace(model_patcher=other_kind))
    refusal("a model without such layers", lambda: nodes.host.attention.Attending(EDIT, run_of_it, maps, p2p()))
    refusal("no arrow", lambda: moved(sentences="a cat"))
    refusal("another text encoder's", lambda: moved([[torch.zeros(1, 7, 4), {}]]))
    t5 = comfy.text_encoders.flux.T5XXLTokenizer()
    only_t5 = SimpleNamespace(tokenizer=SimpleNamespace(t5xxl=t5), tokenize=lambda text: {"t5xxl": [[(1, 1.0)]]})
    refusal("no CLIP", lambda: nodes.attention.PromptPair.execute(only_t5, "a", "b"))
    refusal("no words", lambda: p2p(words={"a": 1}))
    save_file({key: value.clone().contiguous() for key, value in numbers.items()}, wanted, metadata=texts)
