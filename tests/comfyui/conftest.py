"""One ComfyUI and one browser for all the tests here; where they are absent the tests are skipped,
and the last lines of the run say so."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.comfyui.rig import browser as browser_module
from tests.comfyui.rig import server as server_module
from tests.comfyui.rig.company import LORA
from tests.comfyui.rig.on_page import EMPTY
from tests.comfyui.rig.server import PACK
from tests.comfyui.rig.summary import HOW_TO_BROWSER, HOW_TO_COMFYUI


@pytest.fixture(scope="session")
def server():
    reason = server_module.why_not()
    if reason:
        pytest.skip(f"COMFYUI NOT TESTED: {reason}; {HOW_TO_COMFYUI}")
    with server_module.Server() as running:
        yield running


@pytest.fixture(scope="session")
def lora(server):
    """LORA: random weights on every attention of the demo UNet and of its text encoder."""
    weights, generator = {}, torch.Generator().manual_seed(0)
    folder = PACK / "ddpm_core" / "demo" / "weights"
    for prefix, file in (
        ("lora_unet", "unet/diffusion_pytorch_model.safetensors"),
        ("lora_te", "text_encoder/model.safetensors"),
    ):
        for key, weight in load_file(folder / file).items():
            if "attn" not in key or not key.endswith(".weight"):
                continue
            (rows, columns), name = weight.shape, key.removesuffix(".weight").replace(".", "_")
            weights[f"{prefix}_{name}.lora_up.weight"] = 0.2 * torch.randn(rows, 4, generator=generator)
            weights[f"{prefix}_{name}.lora_down.weight"] = 0.2 * torch.randn(4, columns, generator=generator)
    save_file(weights, server.base / "models" / "loras" / LORA)


@pytest.fixture(scope="session")
def page(server):
    reason = browser_module.why_not()
    if reason:
        pytest.skip(f"COMFYUI'S FRONTEND NOT TESTED: {reason}; {HOW_TO_BROWSER}")
    with browser_module.Page(server) as opened:
        yield opened


@pytest.fixture
def no_errors(page):
    yield
    # Help pages are looked for in the reader's language first.
    assert [error for error in page.our_errors() if not re.search(r"/docs/\w+/en\.md$", error["url"])] == []


@pytest.fixture
def shown(page, no_errors):
    """The page with everything that is on it, and an empty graph."""
    page.load(EMPTY)
    with page.whole():
        yield page


SET_NODES_2 = "value => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', value)"


@pytest.fixture
def nodes_2(shown):
    """The page with nodes that are elements of it; drawn nodes again afterwards."""
    if shown.server.version.startswith("0.3."):
        pytest.skip("the frontend of ComfyUI 0.3 has a first sketch of Nodes 2.0")
    shown.page.evaluate(SET_NODES_2, True)
    yield shown
    shown.load(EMPTY)
    shown.page.evaluate(SET_NODES_2, False)
