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

HOW_TO_COMFYUI = "install ComfyUI in ~/comfy/ComfyUI with a .venv inside (or set COMFYUI_PATH and COMFYUI_PYTHON)"
HOW_TO_BROWSER = "pip install playwright, and apt-get install chromium (or set CHROMIUM)"


@pytest.fixture(scope="session")
def server():
    reason = server_module.why_not()
    if reason:
        pytest.skip(f"COMFYUI NOT TESTED: {reason}; {HOW_TO_COMFYUI}")
    with server_module.Server() as running:
        yield running


@pytest.fixture(scope="session")
def lora(server):
    """LORA: a LoRA of random weights on every attention of the demo UNet and of its text encoder."""
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


def pytest_itemcollected(item):
    """Mark what each test needs, where the summary finds it in the reports."""
    item.user_properties += [
        ("needs", name) for name in ("server", "page") if name in getattr(item, "fixturenames", ())
    ]


def _counts(stats, need):
    """How many tests with this need ran, and how many were collected to run."""
    reports = {
        outcome: [
            report for report in stats.get(outcome, []) if ("needs", need) in getattr(report, "user_properties", [])
        ]
        for outcome in ("passed", "failed", "error", "skipped")
    }
    ran = len(reports["passed"]) + len(reports["failed"])
    return ran, sum(map(len, reports.values()))


def pytest_terminal_summary(terminalreporter):
    comfy, _ = server_module.find_comfyui()
    no_server, no_browser = server_module.why_not(), browser_module.why_not()
    where = f"ComfyUI {server_module.comfyui_version(comfy)} at {comfy}" if comfy else ""
    for title, need, place, reason, how in (
        ("COMFYUI", "server", where, no_server, HOW_TO_COMFYUI),
        (
            "COMFYUI'S FRONTEND",
            "page",
            f"it in {browser_module.find_chromium()}",
            no_server or no_browser,
            HOW_TO_COMFYUI if no_server else HOW_TO_BROWSER,
        ),
    ):
        ran, known = _counts(terminalreporter.stats, need)
        if ran:
            terminalreporter.write_sep(
                "=", f"{title}: {ran} test{'s' * (ran != 1)} ran against {place}", green=True, bold=True
            )
        elif known:
            said = f"{reason}; {how}" if reason else "see the errors above"
            terminalreporter.write_sep("=", f"{title}: NOT TESTED: {said}", red=True, bold=True)
