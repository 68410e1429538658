"""Prompts for regions and for ranges of steps, and masks on the latent and on the edit."""

import numpy as np
import pytest

from tests.comfyui.rig.company import FEW, SIDES, apart, chunked_and_without, shown, split
from tests.comfyui.rig.graphs import TARGET, difference, graph, node, pictures, text


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


PROMPTS = {
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
}


@pytest.mark.parametrize(("nodes", "sockets"), PROMPTS.values(), ids=PROMPTS)
def test_it_takes_effect_and_reconstructs_in_chunks_of_8(server, nodes, sockets):
    error, effect = chunked_and_without(server, nodes, sockets)
    assert error <= 1
    assert effect > 20


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
