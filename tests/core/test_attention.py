"""Attention control on words: the alignment of prompts, and the arithmetic against explicit
maps."""

import pytest
import torch
from torch.testing import assert_close

from ddpm_core.attention.controls import Controls, Layer
from ddpm_core.attention.local_blend import Blending, LocalBlend
from ddpm_core.attention.masactrl import Mutual
from ddpm_core.attention.prompt_to_prompt import Control, cross_attention, cross_attention_change, token_map
from ddpm_core.attention.words import Tokens, align, spelled
from ddpm_core.checks import BadArgument

SEVERAL = {"axolotl": 4, "dachshund": 3}  # tokens of words that take more than one
LENGTH = 14


def tokens(prompt: str, length: int = LENGTH) -> Tokens:
    """As CLIP lays a prompt out: start, the words, end, and padding up to ``length``."""
    words, at = [], 1
    for word in prompt.split():
        count = SEVERAL.get(word, 1)
        words.append((word, tuple(range(at, at + count))))
        at += count
    return Tokens(words, start=(0,), end=(at,), padding=tuple(range(at + 1, length)))


def test_words_are_as_a_person_writes_them_whatever_the_vocabulary_cuts_and_codes():
    """CLIP's letters are bytes of UTF-8; a prompt may end within a word."""
    pieces = ["a</w>", "t</w>", "-</w>", "sch", "\u00c3\u00b6", "n</w>", "caf\u00c3"]
    prompt = Tokens(spelled(enumerate(pieces, start=1)))
    assert prompt.words == [("a", (1,)), ("t", (2,)), ("-", (3,)), ("sch\u00f6n", (4, 5, 6)), ("caf\ufffd", (7,))]
    assert prompt.positions("Sch\u00f6n") == [4, 5, 6]
    assert prompt.positions("t-sch\u00f6n") == prompt.positions("t - sch\u00f6n") == [2, 3, 4, 5, 6]
    with pytest.raises(BadArgument, match="does not occur"):
        prompt.positions("sch")


def takes(words):
    """{word of the target: {word of the source: mass that each of its tokens takes}}"""
    result = {}
    for text, at in words.target.words:
        columns = words.taken[:, list(at)]
        result[text] = {t: columns[list(a)].sum(0).tolist() for t, a in words.source.words if columns[list(a)].any()}
    return result


def test_equal_prompts_take_everything_over_as_it_is():
    words = align(tokens("a cat on a mat"), tokens("a cat on a mat"))
    assert torch.equal(words.taken, torch.eye(LENGTH))
    assert not words.own.any()


def test_words_after_a_replaced_one_of_another_length_take_their_own_words_attention():
    """The published replacement mapper reads the words behind it from the wrong places."""
    words = align(tokens("a cat sitting on a mat"), tokens("a axolotl sitting on a mat"))
    for word in ("sitting", "on", "mat"):
        assert takes(words)[word] == {word: [1.0]}
    assert takes(words)["axolotl"] == {"cat": [0.25] * 4}
    assert_close(words.taken.sum(1), torch.ones(LENGTH))  # no mass is lost, and none is won
    assert not words.own.any()


def test_several_tokens_that_become_one_give_it_all_their_mass():
    words = align(tokens("a dachshund sits"), tokens("a cat sits"))
    assert takes(words)["cat"] == {"dachshund": [3.0]}
    assert_close(words.taken.sum(1), torch.ones(LENGTH))


def test_as_many_words_replace_each_other_one_by_one_and_others_as_a_group():
    one_by_one = takes(align(tokens("a striped red star here"), tokens("a plain green heart here")))
    assert one_by_one["plain"] == {"striped": [1.0]}
    assert one_by_one["heart"] == {"star": [1.0]}
    group = takes(align(tokens("a striped red star here"), tokens("a heart here")))
    assert group["heart"] == {"striped": [1.0], "red": [1.0], "star": [1.0]}


def test_new_words_keep_their_own_attention_and_left_out_ones_take_theirs_with_them():
    words = align(tokens("a cat on a mat"), tokens("a sleepy cat on a red mat"))
    assert words.own.nonzero().flatten().tolist() == [2, 6]
    assert not words.taken[:, [2, 6]].any()
    fewer = align(tokens("a sleepy cat"), tokens("a cat"))
    assert fewer.taken[2].sum() == 0
    assert not fewer.own.any()


@pytest.mark.parametrize(("ours", "theirs"), [(14, 14), (14, 20), (20, 14)])
def test_start_end_and_padding_go_by_role_and_keep_their_mass(ours, theirs):
    source, target = tokens("a cat", theirs), tokens("a big cat here", ours)
    words = align(source, target)
    assert words.taken[0].tolist() == [1.0] + [0.0] * (ours - 1)
    assert words.taken[source.end[0]].nonzero().flatten().tolist() == list(target.end)
    for k in range(min(len(source.padding), len(target.padding)) - 1):
        assert words.taken[source.padding[k]].nonzero().flatten().tolist() == [target.padding[k]]
    roles = [*source.start, *source.end, *source.padding]
    assert_close(words.taken[roles].sum(1), torch.ones(len(roles)))


def test_words_are_found_in_any_case_each_time_they_occur_and_the_known_ones_are_named():
    prompt = tokens("a Red cat on a red mat")
    assert prompt.positions("red") == [2, 6]
    assert prompt.positions("red mat") == [6, 7]
    assert prompt.length == LENGTH
    for word in ("dog", ""):
        with pytest.raises(
            BadArgument, match="does not occur in the prompt, whose words are: a, Red, cat, on, red, mat"
        ):
            prompt.positions(word)


# Arithmetic: 2 pictures, 3 heads, 9 queries of width 8.


def projections(length, seed, queries=9, sharpness=1.0):
    generator = torch.Generator().manual_seed(seed)
    q = sharpness * torch.randn(2, 3, queries, 8, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, length, 8, generator=generator, dtype=torch.float64)
    return q, k, v


def attend(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def maps(q, k):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


CONTROLS = {
    "replace": ("a cat sitting on a mat", "a axolotl sitting on a mat", {}),
    "refine": ("a cat on a mat", "a sleepy cat on a red mat", {}),
    "reweight": ("a cat on a mat", "a cat on a mat", {"weights": {"cat": 3.0, "mat": -1.0}}),
    "windows": ("a cat on a mat", "a dog on a red mat", {"cross": 0.3, "windows": {"dog": 0.9, "red": 0.6}}),
    "everything": ("a cat here", "a big axolotl", {"weights": {"big": 2.0}, "windows": {"big": 0.5}}),
}


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("step", [0, 4, 8])
def test_cross_attention_is_that_of_edited_maps(name, step):
    """A'' = a c (taken^T A_s + own A_t) + (1 - a) A_t on explicit maps, token by token."""
    before, after, options = CONTROLS[name]
    control = Control(align(tokens(before), tokens(after)), **{"cross": 0.6, **options})
    target = control.words.target
    (q_source, k_source, _), (q, k, v) = projections(LENGTH, 1), projections(LENGTH, 2)
    theirs, ours = maps(q_source, k_source), maps(q, k)
    edited = torch.empty_like(ours)
    for n in range(LENGTH):
        word = next((text for text, at in target.words if n in at), None)
        inside = step < 10 * control.windows.get(word, control.cross)
        mixed = sum(control.words.taken[w, n] * theirs[..., w] for w in range(LENGTH))
        mixed = control.weights.get(word, 1.0) * (mixed + control.words.own[n] * ours[..., n])
        edited[..., n] = mixed if inside else ours[..., n]
    taken, own = control.coefficients(step, 10)
    rows = (attend, q_source, k_source, q, k, v, taken, own)
    assert_close(cross_attention(*rows), edited @ v, rtol=0, atol=1e-12)
    assert_close(attend(q, k, v) + cross_attention_change(*rows), edited @ v, rtol=0, atol=1e-12)


def test_the_same_prompt_on_the_same_state_changes_nothing():
    control = Control(align(tokens("a cat on a mat"), tokens("a cat on a mat")))
    q, k, v = projections(LENGTH, 1)
    taken, own = control.coefficients(0, 10)
    assert_close(cross_attention(attend, q, k, q, k, v, taken, own), attend(q, k, v), rtol=0, atol=1e-12)
    assert cross_attention_change(attend, q, k, q, k, v, taken, own).abs().max() < 1e-12


def test_after_its_windows_a_control_changes_no_bit():
    control = Control(align(tokens("a cat"), tokens("a dog")), cross=0.5, self_=0.2)
    taken, own = control.coefficients(5, 10)
    assert not taken.any()
    assert torch.equal(own, torch.ones(LENGTH))
    (q_source, k_source, _), (q, k, v) = projections(LENGTH, 1), projections(LENGTH, 2)
    assert torch.equal(cross_attention(attend, q_source, k_source, q, k, v, taken, own), attend(q, k, v))


def test_the_source_is_asked_only_inside_the_windows():
    words = align(tokens("a cat"), tokens("a dog"))
    control = Control(words, cross=0.5, self_=0.2)
    assert [control.acts_at(step, 10) for step in (0, 1, 2, 4, 5)] == [
        *((True, True), (True, True), (True, False)),
        *((True, False), (False, False)),
    ]
    assert Control(words, cross=0.0, self_=0.0, windows={"dog": 0.3}).acts_at(2, 10) == (True, False)
    # The paper's 0.6 and 0.2 of 100 steps with skip 12 are 60 and 20 of the 88 executed ones.
    executed = [Control(words).acts_at(step, 88) for step in range(88)]
    assert [sum(part) for part in zip(*executed)] == [60, 20]


def test_a_token_map_is_the_attention_to_the_words_tokens():
    q, k, _ = projections(LENGTH, 1)
    assert_close(token_map(attend, q, k, [2, 5]), maps(q, k)[..., [2, 5]].sum(-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "argument", "words"),
    [
        ({"cross": 1.2}, "cross", "share of the steps must lie in .0, 1.; got 1.2"),
        ({"self_": -0.1}, "self_", "got -0.1"),
        ({"windows": {"dog": 2.0}}, "windows", "got 2"),
        ({"weights": {"cat": 2.0}}, "word", "'cat' does not occur in the prompt, whose words are: a, dog"),
        ({"windows": {"cat": 0.5}}, "word", "'cat' does not occur"),
    ],
)
def test_a_control_that_cannot_be_is_refused(options, argument, words):
    with pytest.raises(BadArgument, match=words) as caught:
        Control(align(tokens("a cat"), tokens("a dog")), **options)
    assert caught.value.argument == argument


def test_mutual_attention_begins_at_a_step_and_at_a_layer():
    mutual = Mutual()
    assert [mutual.acts_at(step, 50) for step in (0, 3, 4, 49)] == [False, False, True, True]
    assert [mutual.acts_in(layer / 16) for layer in (0, 9, 10, 15)] == [False, False, True, True]
    with pytest.raises(BadArgument, match="layer must be a share"):
        Mutual(layer=10)


# Local blend: 2 pictures, 3 heads, a latent of 12 x 16, whose maps are 3 x 4.


def blend_run(steps=5, cross=0.6):
    """The masks of a run of 2 layers a step, and the edited maps of source and target, (B, steps *
    layers * heads, 12, L)."""
    words = align(tokens("a cat on a mat"), tokens("a dog on a red mat"))
    blending = Blending(LocalBlend(words, ("cat", "dog"), threshold=0.8), steps, (12, 16))
    control = Control(words, cross=cross)
    masks, theirs, ours = [], [], []
    for step in range(steps):
        coefficients = control.coefficients(step, steps) if control.acts_at(step, steps)[0] else None
        for layer in range(2):
            (q_s, k_s, _), (q, k, _) = (projections(LENGTH, 10 * step + 2 * layer + i, 12, 3.0) for i in (0, 1))
            blending.add(attend, q_s, k_s, q, k, coefficients)
            a_s, a_t = maps(q_s, k_s), maps(q, k)
            if coefficients is not None:
                taken, own = (part.double() for part in coefficients)
                a_t = a_s @ taken + a_t * own
            theirs.append(a_s)
            ours.append(a_t)
        masks.append((blending.mask(step), torch.cat(theirs, 1), torch.cat(ours, 1)))
    return words, masks


def published_mask(maps_of_words):
    """From the maps of the chosen words (B, heads of all layers and steps, 12): 3 x 3 pooled, in
    the latent's size, over their largest value, above the threshold."""
    plane = torch.nn.functional.max_pool2d(maps_of_words.mean(1).view(-1, 1, 3, 4), 3, stride=1, padding=1)
    whole = torch.nn.functional.interpolate(plane, size=(12, 16))
    return whole / whole.amax((2, 3), keepdim=True) > 0.8


@pytest.mark.parametrize("cross", [0.0, 0.6])
def test_a_local_blend_changes_where_its_words_are_looked_at(cross):
    words, masks = blend_run(cross=cross)
    assert masks[0][0] is None  # before a fifth of the 5 steps
    seen = set()
    for mask, theirs, ours in masks[1:]:
        (cat,), (dog,) = words.source.positions("cat"), words.target.positions("dog")
        expected = published_mask(theirs[..., cat]) | published_mask(ours[..., dog])
        assert torch.equal(mask, expected.float())
        seen |= set(mask.unique().tolist())
    assert seen == {0.0, 1.0}


def test_a_local_blend_takes_words_of_either_prompt_and_names_the_known_ones():
    words = align(tokens("a cat here"), tokens("a dog here"))
    assert LocalBlend(words, ("cat", "here")).positions() == ([2, 3], [3])
    for options, argument, said in (
        ({"chosen": ("bird",)}, "chosen", "are: a, cat, here.*are: a, dog, here"),
        ({"chosen": ()}, "chosen", "at least one word"),
        ({"chosen": ("cat",), "threshold": 1.5}, "threshold", "got 1.5"),
        ({"chosen": ("cat",), "start": -1.0}, "start", "got -1"),
    ):
        with pytest.raises(BadArgument, match=said) as caught:
            LocalBlend(words, **options)
        assert caught.value.argument == argument


def test_a_local_blend_without_a_layer_of_its_size_says_so():
    words = align(tokens("a cat"), tokens("a dog"))
    blending = Blending(LocalBlend(words, ("cat",)), 5, (8, 8))
    assert blending.mask(1) is None  # a target may begin later
    with pytest.raises(BadArgument, match="layers of 1/4 of the latent's size; this model has none"):
        blending.mask(4)


def test_layers_are_told_by_the_share_of_the_latent_that_they_see():
    """Of a latent of 65 x 72 the layers have 33 x 36, 17 x 18 and 9 x 9 cells, whose sides are
    rounded up."""
    taking = Controls(Control(align(tokens("a"), tokens("a")), self_=1.0), Mutual(0.0, 0.5)).at(0, 10)
    sizes = (33 * 36, 17 * 18, 9 * 9)
    assert [taking.takes(Layer(False, size, (65, 72), 0.9)) for size in sizes] == ["kv", "qk", "qk"]
    assert [taking.takes(Layer(False, size, (65, 72), 0.2)) for size in sizes] == ["", "qk", "qk"]
    assert taking.takes(Layer(True, 33 * 36, (65, 72))) == "qk"
