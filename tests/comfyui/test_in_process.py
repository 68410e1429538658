"""The demo model in both worlds, the cost of an edit, and ComfyUI's samplers as oracles; numbers
from ComfyUI's own process."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from ddpm_core import Process, Solver, schedule
from ddpm_core.demo.model import CONTEXT, FOLDER
from ddpm_core.demo.scenes import caption, random_scenes, render
from ddpm_core.models.stable_diffusion import Pipeline
from tests.comfyui.rig.server import PACK, RIG

SCENE = random_scenes(1, seed=77)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    return {
        "picture": render(SCENE),
        "prompt": torch.tensor(list(caption(SCENE[0]).encode()), dtype=torch.uint8),
        "latent": torch.randn(1, 4, 24, 24, generator=generator),
        "noisy": torch.randn(2, 4, 24, 24, generator=generator),
        "timesteps": torch.tensor([740, 31]),
        "start": 14 * torch.randn(1, 4, 8, 8, generator=generator),
        "sigmas": torch.tensor([14.0, 6.0, 3.0, 1.5, 0.7, 0.2, 0.0]),
        "flow_sigmas": torch.tensor([0.95, 0.8, 0.6, 0.4, 0.2, 0.05, 0.0]),
        "draws": torch.randn(6, 1, 4, 8, 8, generator=generator),
    }


@pytest.fixture(scope="module")
def outputs(server, inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("in_process")
    save_file(inputs, folder / "in.safetensors")
    server.run_script(RIG / "in_process.py", PACK, folder / "in.safetensors", folder / "out.safetensors")
    return load_file(folder / "out.safetensors")


def test_the_demo_model_is_the_same_in_diffusers_and_in_comfyui(inputs, outputs):
    model = Pipeline.load(FOLDER)
    pipe = model.pipe
    with torch.no_grad():
        ids = pipe.tokenizer(caption(SCENE[0]), padding="max_length", max_length=CONTEXT, return_tensors="pt").input_ids
        context = pipe.text_encoder(ids).last_hidden_state
        noise = pipe.unet(inputs["noisy"], inputs["timesteps"], context.expand(2, -1, -1)).sample
        decoded = (pipe.vae.decode(inputs["latent"]).sample / 2 + 0.5).clamp(0, 1)
    near = {"rtol": 0, "atol": 1e-4}
    assert_close(outputs["context"], context, **near)
    assert_close(outputs["scaled"], model.encode(inputs["picture"]), **near)
    assert_close(outputs["decoded"], decoded, **near)
    assert_close(outputs["noise"], noise, **near)
    assert_close(outputs["sigma_of_timestep"], model.sigma_of_timestep.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("cfg", "branches"), [(3.5, 2), (1.0, 1)])
def test_an_edit_takes_72_calls_and_gives_the_latent_back(outputs, cfg, branches):
    sizes = outputs[f"sizes_{cfg}"].tolist()
    assert sizes == [8 * branches] * 8 + [branches] * 64
    assert outputs[f"error_{cfg}"] <= 1e-5


def test_a_patch_that_reads_one_sigma_gets_one_timestep_a_call(outputs):
    assert outputs["patched_sizes"].tolist() == [2] * 128
    assert outputs["patched_error"] <= 1e-5


def test_the_automatic_chunk_takes_what_fits(outputs):
    assert outputs["chunks"].tolist() == [1, 2, 8]


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize(
    ("name", "solver", "process"),
    [
        ("sample_euler_ancestral", Solver.FIRST_ORDER, Process.VE),
        ("sample_dpmpp_2m_sde", Solver.DPMPP_2M_SDE, Process.VE),
        ("sample_dpmpp_2m_sde", Solver.DPMPP_2M_SDE, Process.FLOW),
    ],
)
def test_our_steps_are_the_samplers_of_k_diffusion(inputs, outputs, name, solver, process, eta):
    x, before = inputs["start"], None
    sigmas = inputs["flow_sigmas" if process is Process.FLOW else "sigmas"]
    for step, z in zip(schedule(sigmas, eta=eta, solver=solver, process=process), inputs["draws"]):
        x0_hat = torch.tanh(x / (1 + step.sigma**2))
        x, before = step.mean(x, x0_hat, before) + step.up * z, x0_hat
    assert_close(x, outputs[f"{name}_{process.value}_{eta}"], rtol=1e-4, atol=1e-4)
