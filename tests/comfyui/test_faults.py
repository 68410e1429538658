"""What goes wrong in a model: the error is clear, nothing false is kept, the next queue works."""

import json
import math

import numpy as np
import pytest

from tests.comfyui.rig.graphs import SEEN, TARGET, difference, graph, node, pictures, refusal
from tests.comfyui.rig.server import PromptError

CALLS = 5  # of the model in the inversion, one timestep each, and again in the edit
SETTINGS = {
    "target": {"text": TARGET},
    "maps": {"steps": CALLS + 1, "skip": 1, "chunk": 1},
    "edit": {"skip": 1, "cfg": 5.0},
}
WHERE = {
    1: "EditFriendlyInvert",
    3: "EditFriendlyInvert",
    5: "EditFriendlyInvert",
    6: "NoiseMapEdit",
    8: "NoiseMapEdit",
    10: "NoiseMapEdit",
}
WORDS = "the patch found no scale for this layer"


@pytest.fixture(scope="module")
def right(server):
    """The edit without faults."""
    history = server.queue(graph(**SETTINGS))
    assert difference(history) > 20
    return pictures(history, "out")


@pytest.fixture
def faulty(request):
    """The prompt of the same edit with a model that goes wrong; the same prompt again goes on with
    the call after the fault."""

    def build(fault, at, place="wrapper", chunk=1):
        broken = node("FaultyModel", model=["model", 0], fault=fault, at=at, tag=request.node.name, place=place)
        return graph(
            broken=broken,
            target=SETTINGS["target"],
            maps={**SETTINGS["maps"], "model": ["broken", 0], "chunk": chunk},
            edit={**SETTINGS["edit"], "model": ["broken", 0]},
        )

    return build


@pytest.fixture
def sizes(server, request):
    """The samples in each call of this test's faulty model, so far."""
    return lambda: json.loads(server.queue({"calls": node("ModelCalls", tag=request.node.name)})["calls"].text[0])


def failure(server, prompt):
    with pytest.raises(PromptError) as caught:
        server.queue(prompt)
    return caught.value


def assert_goes_on(server, prompt, sizes, at, right):
    """The same prompt again gives the right picture, and only what failed or had not run is run."""
    assert (pictures(server.queue(prompt), "out") == right).all()
    assert len(sizes()) == at + (2 * CALLS if at <= CALLS else CALLS)


@pytest.mark.parametrize("at", WHERE)
def test_an_interrupt_stops_after_the_call_that_runs(server, faulty, sizes, right, at):
    prompt = faulty("interrupt", at)
    error = failure(server, prompt)
    assert (error.kind, error.node_type) == ("interrupted", WHERE[at])
    assert_goes_on(server, prompt, sizes, at, right)


def test_an_interrupt_stops_after_the_batch_of_timesteps_that_runs(server, faulty, sizes, right):
    prompt = faulty("interrupt", 2, "network", chunk=2)
    assert failure(server, prompt).node_type == "EditFriendlyInvert"
    assert np.abs(pictures(server.queue(prompt), "out") - right).max() <= 1
    assert sizes() == [4, 4, 4, 4, 2, *[2] * CALLS]


@pytest.mark.parametrize(("fault", "at"), [("error", 1), ("error", 8), ("value error", 5)])
def test_an_error_in_a_patch_keeps_its_words_and_leaves_the_model_as_it_was(server, faulty, sizes, right, fault, at):
    prompt = faulty(fault, at)
    error = failure(server, prompt)
    assert (error.kind, error.node_type) == ("execution", WHERE[at])
    assert WORDS in error.message
    assert_goes_on(server, prompt, sizes, at, right)
    assert (pictures(server.queue(graph(**SETTINGS)), "out") == right).all()


@pytest.mark.parametrize(("fault", "at"), [("nan", 1), ("nan", 8), ("nan", 10), ("inf", 5), ("inf", 6)])
def test_values_that_are_not_finite_are_named_with_what_to_do(server, faulty, sizes, right, fault, at):
    prompt = faulty(fault, at)
    error = failure(server, prompt)
    words = (
        SEEN.get(WHERE[at], WHERE[at]),
        "input 'model'",
        "at sigma",
        "float16",
        "--bf16-unet",
        "NaN or infinite",
        "1 of 2304" if fault == "inf" else "2304 of 2304",
    )
    assert all(word in error.message for word in words), error.message
    assert_goes_on(server, prompt, sizes, at, right)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_latent_that_is_not_finite_is_refused(server, value):
    message = refusal(
        server, broken=node("BrokenLatent", latent=["latent", 0], value=value), maps={"latent": ["broken", 0]}
    )
    assert all(
        word in message for word in ("Edit-Friendly Invert", "input 'latent'", "1 of 2304", "VAEs in half precision")
    ), message


@pytest.mark.parametrize("most", [4, 2])
@pytest.mark.parametrize("fault", ["out of memory", "out of memory in words"])
def test_out_of_memory_halves_the_timesteps_a_call(server, faulty, sizes, right, fault, most):
    history = server.queue(faulty(fault, most, "network", chunk=64))
    assert np.abs(pictures(history, "out") - right).max() <= 1
    found = sizes()
    tries = [size for size in found if size > most]
    assert tries, "ComfyUI divided the batch itself, so nothing ran out of memory"
    # Each try is smaller than the one before, and what fits is kept to.
    assert found[: len(tries)] == tries == sorted(set(tries), reverse=True)
    assert sum(found[len(tries) :]) == 2 * 2 * CALLS


@pytest.mark.parametrize(
    ("fault", "words"),
    [("out of memory", "you ran out of memory on your GPU"), ("out of memory in words", "out of memory for 2 samples")],
)
def test_where_not_even_one_timestep_fits_the_error_says_so(server, faulty, sizes, right, fault, words):
    error = failure(server, faulty(fault, 1, "network", chunk=4))
    assert (error.kind, error.node_type) == ("execution", "EditFriendlyInvert")
    assert words in error.message
    assert sizes()[-1] == 2  # both guidance branches of one timestep
    assert (pictures(server.queue(graph(**SETTINGS)), "out") == right).all()


def test_maps_stay_on_the_cpu_and_take_16_bytes_a_value(server):
    report = json.loads(
        server.queue(graph(**SETTINGS, told=node("MapsReport", noise_maps=["maps", 0])))["told"].text[0]
    )
    latent = (1, 4, 24, 24)
    assert {name: (held["device"], held["dtype"], tuple(held["shape"])) for name, held in report.items()} == {
        "sigmas": ("cpu", "torch.float64", (CALLS + 1,)),
        "latents": ("cpu", "torch.float32", (CALLS + 1, *latent)),
        "residuals": ("cpu", "torch.float64", (CALLS, *latent)),
        "predictions": ("cpu", "torch.float32", (CALLS, *latent)),
    }
    assert sum(report[name]["bytes"] for name in ("latents", "residuals", "predictions")) == (
        16 * CALLS + 4
    ) * math.prod(latent)


@pytest.mark.parametrize("socket", ["the noise mask of the latent", "the mask of the edit"])
def test_a_mask_that_is_not_finite_is_refused(server, socket):
    changes = {"broken": node("BrokenMask", mask=["scene", 1])}
    if socket == "the mask of the edit":
        changes["edit"] = {"mask": ["broken", 0]}
    else:
        changes |= {
            "masked": node("SetLatentNoiseMask", samples=["latent", 0], mask=["broken", 0]),
            "maps": {"latent": ["masked", 0]},
        }
    message = refusal(server, **changes)
    where = "Noise Map Edit, input 'mask'" if "edit" in changes else "Edit-Friendly Invert, input 'latent'"
    assert where in message
    assert "1 of 36864 values are NaN" in message
