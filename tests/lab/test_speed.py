"""The benchmark counts what each way asks of the model, and its ways do the same mathematics. What
the seconds are is nobody's promise."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.testing import assert_close
from tqdm import tqdm

from ddpm_core import plan
from ddpm_core.__main__ import parser
from ddpm_core.demo.model import FOLDER, SCHEDULER
from ddpm_core.lab.speed import cases, command, report, timing
from ddpm_core.lab.speed.cases import Case, tables
from ddpm_core.lab.speed.random_unet import RANDOM, random_pipeline, random_unet
from ddpm_core.lab.speed.timing import Meter, measure
from ddpm_core.lab.speed.ways import authors, ours
from ddpm_core.models.stable_diffusion import Pipeline
from ddpm_core.plan import Preset

PRESETS = {"quality": Preset(100, 36, 3.5, 15.0), "fast": Preset(20, 7, 1.0, 15.0)}
TINY = {"quality": Preset(3, 1, 3.5, 15.0), "fast": Preset(2, 1, 1.0, 15.0)}
SMALL = {
    "sd15": {
        "sample_size": 8,
        "block_out_channels": (32, 32, 64, 64),
        "attention_head_dim": 2,
        "cross_attention_dim": 32,
        "layers_per_block": 1,
    },
    "sdxl": {
        "sample_size": 8,
        "block_out_channels": (32, 64, 64),
        "attention_head_dim": (1, 2, 4),
        "cross_attention_dim": 32,
        "transformer_layers_per_block": (1, 1, 2),
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 16,
        "layers_per_block": 1,
    },
}


def small(kind):
    return {**RANDOM[kind], **SMALL[kind]}


class FakeUNet(nn.Module):
    """A smooth nonlinear prediction, in float64, that depends on the timestep and the prompt."""

    def __init__(self, seconds=0.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.conv_in = SimpleNamespace(weight=self.gain)  # device and dtype
        self.config, self.device = SimpleNamespace(in_channels=4, sample_size=8), torch.device("cpu")
        self.seconds = seconds

    def forward(self, x, t, encoder_hidden_states, added_cond_kwargs):
        time.sleep(self.seconds)
        text = encoder_hidden_states.mean((1, 2)).view(-1, 1, 1, 1)
        return SimpleNamespace(
            sample=torch.tanh(self.gain * x + 0.3 * x.roll(1, -1) + text + t.view(-1, 1, 1, 1) / 1000)
        )


def fake_model(seconds=0.0):
    def encode_prompt(prompt, **_):
        return torch.full((1, 2, 3), len(prompt) / 100, dtype=torch.float64), None

    vae = SimpleNamespace(config=SimpleNamespace(latent_channels=4, block_out_channels=(0,) * 4))
    return Pipeline(
        SimpleNamespace(
            unet=FakeUNet(seconds), vae=vae, scheduler=DDIMScheduler(**SCHEDULER), encode_prompt=encode_prompt
        )
    )


def latent(size=8, batch=1, dtype=torch.float32):
    return torch.randn(batch, 4, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_what_each_way_asks_of_the_model():
    model = fake_model()
    counts = {}
    for table, cases_of_table in tables(model, PRESETS).items():
        for case in cases_of_table:
            with Meter(model.pipe.unet) as meter:
                case.run()
            counts[case.way] = (len(meter.sizes), sum(meter.sizes))
            assert table != "way" or case.way[:3] != "(a)" or set(meter.sizes) == {1}
    assert counts == {
        "(a) the authors' way": (328, 328),
        "(b) ours, the same settings": (72, 256),
        "(c) ours, source guidance 1": (72, 192),
        "(d) ours, the fast preset": (15, 39),
        "(e) sampling, samples as (b)": (128, 256),
        "(e) sampling, samples as (d)": (20, 40),  # two branches a step: no odd number
        "(f) ours, the turbo preset": (5, 12),
        "(g) ours, fast, with its mask": (17, 52),
        "chunk 1": (128, 256),
        "chunk 2": (96, 256),
        "chunk 4": (80, 256),
        "chunk 8": (72, 256),
        "chunk 16": (68, 256),
        "chunk 32": (66, 256),
        "latent 4": (15, 39),
        "latent 8": (15, 39),
        "latent 12": (15, 39),
        "latent 16": (15, 39),
        "4 edits, 1 a call": (54, 117),
        "4 edits, 4 a call": (15, 117),
        **{f"{a_call} a call": (32 // a_call, 32) for a_call in (1, 2, 4, 8, 16, 32)},
        "batch 1": (15, 39),
        "batch 2": (15, 78),
        "batch 4": (15, 156),
    }


def test_the_papers_preset_is_the_papers():
    assert command.PRESETS is plan.PRESETS
    assert command.PRESETS == {"quality": Preset(100, 36, 3.5, 15.0), "fast": Preset(10, 4, 3.5, 15.0)}
    assert command.PRESETS.keys() == command.QUICK.keys()


@pytest.mark.parametrize("preset", [Preset(100, 36, 3.5, 15.0), Preset(20, 0, 1.0, 3.0)])
def test_the_authors_way_gives_the_same_edit(preset):
    model, x0 = fake_model(), latent(batch=2, dtype=torch.float64)
    edit, kept = authors(model, x0, preset)()
    assert_close(edit, ours(model, x0, preset)()[0], rtol=1e-9, atol=1e-9)
    assert (edit - x0).abs().mean() > 0.01
    assert kept == (2 * preset.steps + 1) * x0.nbytes


def test_with_the_demo_model_too():
    """float32 here, against ours with its state in float64."""
    model, x0 = Pipeline.load(FOLDER), latent(24)
    edit, expected = (way(model, x0, Preset(4, 1, 3.5, 3.0))()[0] for way in (authors, ours))
    assert_close(edit, expected, rtol=0, atol=1e-3)
    assert (edit - x0).abs().mean() > 0.1


def test_the_bytes_of_the_maps():
    x0 = latent(dtype=torch.float32)
    kept = ours(fake_model(), x0, Preset(10, 4, 3.5, 15.0))()[1]
    assert kept == 7 * 8 + x0.nbytes * (7 + 2 * 6 + 6)  # sigmas; latents, residuals in double precision, predictions


def test_a_case_that_does_not_fit_into_memory_is_marked_and_the_rest_goes_on():
    model, x0, preset = fake_model(), latent(), Preset(4, 1, 1.0, 3.0)

    def too_large():
        raise RuntimeError("CUDA out of memory")

    three = [
        Case("fits", preset, x0, ours(model, x0, preset)),
        Case("does not", preset, x0, too_large),
        Case("fits too", preset, x0, ours(model, x0, preset)),
    ]
    with tqdm(disable=True) as bar:
        rows = measure(model, {"way": three}, 2, bar)
    assert [report.COLUMNS["seconds"](row) == "out of memory" for row in rows] == [False, True, False]
    assert rows[2].ratio > 0

    def mistake():
        raise RuntimeError("a mistake")

    with tqdm(disable=True) as bar, pytest.raises(RuntimeError, match="a mistake"):
        measure(model, {"way": [Case("wrong", preset, x0, mistake)]}, 1, bar)


def test_the_time_within_the_model_and_the_end_of_the_count():
    model = fake_model(seconds=0.01)
    denoise = model.denoiser("a red star", guidance=3.5)
    with Meter(model.pipe.unet) as meter:
        begin = time.perf_counter()
        for batch in (1, 3, 2):
            denoise(latent(batch=batch), torch.ones(batch))
            time.sleep(0.05)
        total = time.perf_counter() - begin
    assert 3 * 0.01 <= meter.seconds() <= total - 3 * 0.05
    denoise(latent(), torch.ones(1))
    assert meter.sizes == [2, 6, 4]


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of a CPU is known on Linux only")
def test_the_peak_is_that_of_the_run_alone():
    """In a process of its own: holes that other tests left in the heap may count."""
    code = """
import torch
from ddpm_core.lab.speed.memory import peak_memory

def whole(megabytes):
    return lambda: (torch.ones(megabytes, 1000**2, dtype=torch.uint8)[:0], megabytes)

def scattered():  # 100 MB in pieces, every other given back, then 75 MB in pieces too large for the holes
    pieces = [torch.ones(10**6, dtype=torch.uint8) for _ in range(100)][::2]
    pieces += [torch.ones(3 * 10**6 // 2, dtype=torch.uint8) for _ in range(50)]
    return pieces[0], 125

for run in (whole(200), whole(50), whole(0), whole(20), scattered):  # a larger one before leaves no mark
    print(*peak_memory(run, torch.device("cpu")))
"""
    root = Path(command.__file__).parents[3]
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    measured = [tuple(map(int, line.split())) for line in shown.splitlines()]
    assert [kept for _, kept in measured] == [200, 50, 0, 20, 125]
    assert all(abs(peak / 1e6 - kept) < 5 for peak, kept in measured), measured


class Clock:
    """A clock that goes on only by what it is told."""

    def __init__(self, monkeypatch):
        self.seconds = 0.0
        monkeypatch.setattr(timing, "clock", lambda device: self.seconds)

    def advance(self, seconds):
        self.seconds += seconds


def test_seconds_are_medians_of_interleaved_rounds_and_ratios_are_for_one_picture(monkeypatch):
    clock, order = Clock(monkeypatch), []

    def case(way, batch, *seconds):
        rounds = iter(seconds)

        def run():
            order.append(way)
            clock.advance(next(rounds))
            return None, 3_000_000

        return Case(way, Preset(9, 4, 1.0, 2.0), latent(batch=batch), run, 8)

    with tqdm(total=8, disable=True) as bar:
        rows = measure(fake_model(), {"batch": [case("one", 1, 9, 2, 4, 100), case("two", 2, 8, 50, 5, 100)]}, 3, bar)
    assert order == ["one", "two"] * 4
    assert [(row.way, row.batch, row.seconds, row.kept_mb) for row in rows] == [("one", 1, 4, 3), ("two", 2, 8, 3)]
    assert [row.ratio for row in rows] == [1, 8 / 2 / 4]
    assert [(row.steps, row.skip, row.cfg_source, row.cfg) for row in rows] == [(9, 4, 1, 2)] * 2


def test_the_models_share_is_the_median_of_the_rounds(monkeypatch):
    clock, model, outside = Clock(monkeypatch), fake_model(seconds=2.0), iter((2.0, 6.0, 0.0, 0.0))
    monkeypatch.setattr(time, "sleep", clock.advance)  # what the fake UNet takes

    def run():
        clock.advance(next(outside))
        model.denoiser("a red star", guidance=1.0)(latent(), torch.ones(1))
        return None, 0

    with tqdm(disable=True) as bar:
        (row,) = measure(model, {"way": [Case("one", Preset(9, 4, 1.0, 2.0), latent(), run)]}, 3, bar)
    assert (row.calls, row.samples, row.seconds) == (1, 1, 4)
    assert row.model_share == 0.5  # of 1/2, 1/4 and 1


@pytest.mark.parametrize(("kind", "parameters"), [("sd15", 859_520_964), ("sdxl", 2_567_463_684)])
def test_the_random_models_have_the_size_of_the_real_ones(kind, parameters):
    assert sum(p.numel() for p in random_unet(RANDOM[kind], "meta", torch.float16).parameters()) == parameters


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_shrunk_random_model_runs_and_is_the_same_each_time(kind):
    preset, x0 = Preset(4, 1, 3.5, 15.0), latent()
    first, again = (ours(random_pipeline(small(kind), "cpu", torch.bfloat16), x0, preset)()[0] for _ in range(2))
    assert_close(first, again, rtol=0, atol=0)
    model = random_pipeline(small(kind), "cpu", torch.float32)
    assert_close(authors(model, x0, preset)()[0], ours(model, x0, preset)()[0], rtol=0, atol=1e-3)
    assert 0.1 < (first - x0).abs().mean() < 100


def row(table, way, seconds, samples=10, model_share=0.9, chunk=8):
    numbers = {"steps": 10, "skip": 4, "cfg_source": 1.0, "cfg": 3.0, "batch": 1, "latent": "8x8", "calls": 5}
    rest = {"ratio": 1.0, "peak_mb": None, "kept_mb": 1.0, "samples": samples, "model_share": model_share}
    return timing.Row(table=table, way=way, seconds=seconds, chunk=chunk, **numbers, **rest)


def test_what_is_found_of_the_chunk_and_of_our_own_code():
    rows = [
        row("way", "(b) ours, the same settings", 2.0, model_share=0.99),
        row("way", "(d) ours, the fast preset", 1.0, model_share=0.95),
        row("way", "(a) the authors' way", 9.0, model_share=0.5),
        row("chunk", "chunk 4", 1.0, chunk=4),
        row("chunk", "chunk 8", 1.25, chunk=8),
        row("chunk", "chunk 16", float("nan"), chunk=16),
        row("the UNet alone", "2 a call", 1.0, samples=32),
        row("the UNet alone", "4 a call", 0.5, samples=32),
    ]
    assert report.findings(rows).splitlines() == [
        "- Outside of the UNet: at most 5.0 % of the seconds, in (d) ours, the fast preset.",
        "- (b) takes 5.00 samples a second, the UNet alone up to 64.00.",
        "- The fastest is chunk 4; chunk 8, the most that the nodes' chunk 0 takes, takes 1.250 times as long.",
    ]
    assert report.findings([row("chunk", "chunk 8", float("nan"))]) == ""


def run_speed(*arguments):
    args = parser("speed").parse_args(["speed", *arguments])
    args.run(args)


@pytest.mark.parametrize("more", [[], ["--random", "sdxl", "--dtype", "bfloat16"]])
@pytest.mark.slow
def test_a_quick_run_from_end_to_end(tmp_path, capsys, monkeypatch, more):
    monkeypatch.setattr(command, "QUICK", TINY)
    for name, values in {"CHUNKS": (2,), "SIZES": (0.5, 1), "BATCHES": (1, 2)}.items():
        monkeypatch.setattr(cases, name, values)
    monkeypatch.setitem(RANDOM, "sdxl", small("sdxl"))
    run_speed("--quick", "--device", "cpu", "--out", str(tmp_path / "new" / "speed"), *more)
    shown = capsys.readouterr().out
    text = (tmp_path / "new" / "speed" / "speed.md").read_text()
    assert text in shown
    machine = f"cpu, torch on {torch.get_num_threads()} threads; torch {torch.__version__}"
    assert f"{machine}, {'bfloat16' if more else 'float32'};" in text
    assert ("sdxl with random weights" if more else "the demo model, a UNet of 7 M parameters") in text
    more_headings = ["## By edits of one inversion", "## By the UNet alone"]
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## By way", "## By chunk", "## By latent size", *more_headings, "## By batch"]
    with open(tmp_path / "new" / "speed" / "speed.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == timing.Row._fields
    assert len(rows) == 8 + 1 + 2 + 2 + 1 + 2
    assert [float(rows[i]["ratio"]) for i in (0, 8, 9, 11, 13, 14)] == [1.0] * 6  # the first row of each table
    assert (rows[0]["calls"], rows[0]["samples"], rows[0]["chunk"], rows[1]["chunk"]) == ("10", "10", "", "8")
    for row in rows:
        assert float(row["seconds"]) > 0
        assert 0 < float(row["model_share"]) < 1
        assert text.count(f"| {row['way']} | {row['steps']} / {row['skip']} |") == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--device", "cuda:77"], "--device must be one that torch can use"),
        (["--repeat", "0"], "--repeat must be 1 or more rounds; got 0"),
    ],
)
def test_mistakes_are_refused_before_any_work(tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        run_speed("--out", str(tmp_path / "out"), *more)
    assert not (tmp_path / "out").exists()
