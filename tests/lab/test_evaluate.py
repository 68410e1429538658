"""The evaluate command on manifests small enough to know: what is made, measured, kept and written."""

import argparse
import csv
import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_core.__main__ import parser
from ddpm_core.demo.scenes import caption, render, scene_with
from ddpm_core.lab import options, store
from ddpm_core.lab.batch import drive, jobs
from ddpm_core.lab.batch.manifest import Entry
from ddpm_core.lab.evaluate import metrics
from ddpm_core.lab.evaluate.report import summary
from ddpm_core.lab.store import Table
from ddpm_core.measure.pictures import to_image
from ddpm_core.plan import Plan
from ddpm_core.steps import Solver

SCENE = scene_with(4, shape="star", fill="striped", color="red", background="blue")
GREEN, MOON = caption(replace(SCENE, color="green")), caption(replace(SCENE, shape="moon"))
NASTY = 'a <b>"moon" & star</b>'
WORKING = f"""\
-
  init_img: /pictures/star.png
  source_prompt: {caption(SCENE)}
  target_prompts:
    - {GREEN}
    - {MOON}
"""


class StubLPIPS(torch.nn.Module):
    def __init__(self, net, verbose):
        super().__init__()

    def forward(self, one, other):
        return (one - other).abs().mean().reshape(1, 1, 1, 1)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder with a picture; no LPIPS, and a CLIP that scores a prompt by its length."""
    (tmp_path / "pictures").mkdir()
    to_image(render([SCENE])[0]).save(tmp_path / "pictures" / "star.png")
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setattr(metrics, "load_clip", lambda name, device: lambda picture, prompt: float(len(prompt)))
    return tmp_path


@pytest.fixture
def lpips(monkeypatch):
    """A package of this name whose distance is twice the mean absolute difference."""
    module = ModuleType("lpips")
    module.LPIPS = StubLPIPS
    monkeypatch.setitem(sys.modules, "lpips", module)


@pytest.fixture(scope="module")
def demo_model():
    return options.load_model(argparse.Namespace(model=None, config=None, device="cpu", dtype="float32"))


@pytest.fixture
def calls(monkeypatch, demo_model):
    """The sizes of the model's calls; the model is loaded once for all tests."""
    sizes = []
    hook = demo_model.pipe.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(jobs, "load_model", lambda args: demo_model)
    yield sizes
    hook.remove()


def evaluate(home, text, *more, folder="out"):
    """Runs the command on a manifest of this text; the folder of its results."""
    (home / "test.yaml").write_text(text, encoding="utf-8")
    out = home / folder
    arguments = [
        "evaluate",
        "--manifest",
        str(home / "test.yaml"),
        "--out",
        str(out),
        "--steps",
        "4",
        "--skip",
        "2",
        "--size",
        "64",
        "--device",
        "cpu",
        *more,
    ]
    args = parser("evaluate").parse_args(arguments)
    args.run(args)
    return out


def read_rows(out):
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def picture(path):
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).double() / 255


def test_every_prompt_and_seed_is_edited_from_one_inversion_a_seed(home, calls, lpips, capsys):
    out = evaluate(home, WORKING, "--seeds", "2")
    assert (
        calls == [2, 2, 2, 2, 2] * 2
    )  # an inversion of 2 timesteps with one branch, two edits of 2 steps with two: for each seed
    rows = read_rows(out)
    assert [(row["image"], row["source_prompt"], row["target_prompt"], row["seed"]) for row in rows] == [
        ("/pictures/star.png", caption(SCENE), target, seed) for seed in "01" for target in (GREEN, MOON)
    ]
    (source,) = [picture(path) for path in (out / "sources").iterdir()]
    edits = [picture(out / row["picture"]) for row in rows]
    for row, edit in zip(rows, edits):
        assert float(row["psnr"]) == pytest.approx(-10 * math.log10((edit - source).square().mean()), rel=1e-4)
        assert float(row["lpips"]) == pytest.approx(2 * (edit - source).abs().mean().item(), rel=1e-4)
        assert float(row["clip"]) == len(row["target_prompt"])
        assert 0.3 < float(row["ssim"]) < 1
        assert min(float(row["seconds_inversion"]), float(row["seconds_edit"])) > 0
    apart = [2 * (one - other).abs().mean().item() for one, other in zip(edits[:2], edits[2:])]
    assert min(apart) > 0
    assert [row["diversity"] for row in rows[:2]] == ["", ""]
    assert [float(row["diversity"]) for row in rows[2:]] == pytest.approx(apart, rel=1e-4)
    report = (out / "report.md").read_text()
    assert "4 of 4 edits, of 1 pictures." in report
    mean = sum(float(row["lpips"]) for row in rows) / 4
    assert f"| LPIPS | {mean:.3f} | - | 4 |" in report
    assert f"| diversity | {sum(apart) / 2:.3f} | - | 2 |" in report
    assert "Missing" not in report
    assert "cfg_source: 1.0" in report
    printed = capsys.readouterr()
    assert "100%" in printed.err
    assert str(out / "index.html") in printed.out


@pytest.mark.parametrize(("inversion", "sizes"), [("native", [2]), ("ddim", [1, 1]), ("sdedit", [])])
def test_rival_inversions_serve_the_same_edits(home, calls, inversion, sizes):
    out = evaluate(home, WORKING, "--inversion", inversion)
    assert calls == [*sizes, 2, 2, 2, 2]
    own = evaluate(home, WORKING, folder="own")
    for row, other in zip(read_rows(out), read_rows(own)):
        assert (picture(out / row["picture"]) - picture(own / other["picture"])).abs().max() > 0.02
    assert json.loads((out / "settings.json").read_text())["eta"] == (0 if inversion == "ddim" else 1)


@pytest.mark.slow
def test_two_workers_edit_and_measure_what_one_process_does(home, one_thread):
    """The stand-ins here are not the workers': they have no CLIP."""
    to_image(render([replace(SCENE, color="yellow")])[0]).save(home / "pictures" / "other.png")
    text = WORKING + WORKING.replace("star.png", "other.png")
    more = ["--seeds", "2", "--clip", str(home / "none"), "--workers"]
    plain, shared = (evaluate(home, text, *more, workers, folder=workers) for workers in ("1", "2"))
    columns = ("picture", "seed", "psnr", "ssim")
    rows, others = ([[row[column] for column in columns] for row in read_rows(out)] for out in (plain, shared))
    assert rows == others
    assert len(rows) == 8
    assert all((plain / row[0]).read_bytes() == (shared / row[0]).read_bytes() for row in rows)


def test_what_is_there_is_not_made_again(home, calls):
    out = evaluate(home, WORKING)
    first, calls[:] = read_rows(out), []
    evaluate(home, WORKING)
    assert calls == []
    assert read_rows(out) == first
    (out / first[0]["picture"]).unlink()
    more = (
        WORKING
        + f"- {{init_img: pictures/star.png, source_prompt: {caption(SCENE)}, target_prompts: [{MOON}, a ring]}}\n"
    )
    evaluate(home, more)  # the lost edit again, and the one prompt that the manifest did not have
    assert calls == [2, 2, 2] * 2
    assert {row["target_prompt"] for row in read_rows(out)} == {GREEN, MOON, "a ring"}
    assert "3 of 3 edits, of 2 pictures." in (out / "report.md").read_text()
    to_image(render([replace(SCENE, fill="plain")])[0]).save(home / "pictures" / "star.png")
    calls.clear()
    evaluate(home, WORKING)
    assert calls == [2, 2, 2, 2, 2]  # another picture under the same name


def test_an_interrupted_run_has_its_rows_and_its_sheet(home, calls, monkeypatch):
    def stop(bar):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(drive.Progress, "update", stop)
        with pytest.raises(ValueError, match="interrupted; start the same command again"):
            evaluate(home, WORKING)
    out = home / "out"
    assert [row["target_prompt"] for row in read_rows(out)] == [GREEN]
    assert "1 of 2 edits" in (out / "report.md").read_text()
    calls.clear()
    evaluate(home, WORKING)
    assert calls == [2, 2, 2]
    assert len(read_rows(out)) == 2


@pytest.mark.parametrize("until", [b"seed0-", b",0.", b"a striped red moon"])
def test_a_half_written_last_line_is_made_again(home, calls, until):
    """Cut within the picture's name, within the figures, and within a prompt."""
    out = evaluate(home, WORKING)
    whole = (out / "results.csv").read_bytes()
    (out / "results.csv").write_bytes(whole[: whole.rindex(until) + 2])
    calls.clear()
    evaluate(home, WORKING)
    assert calls == [2, 2, 2]
    assert [row["target_prompt"] for row in read_rows(out)] == [GREEN, MOON]


def test_a_metric_that_is_there_later_is_filled_in_without_the_model(home, calls, monkeypatch, capsys):
    out = evaluate(home, WORKING, "--seeds", "2")
    assert all(row["lpips"] == row["diversity"] == "" for row in read_rows(out))
    assert "python -m pip install lpips" in (out / "report.md").read_text()
    assert capsys.readouterr().err.count("pip install lpips") == 1
    module = ModuleType("lpips")
    module.LPIPS = StubLPIPS
    monkeypatch.setitem(sys.modules, "lpips", module)
    calls.clear()
    evaluate(home, WORKING, "--seeds", "2")
    assert calls == []
    assert all(float(row["lpips"]) > 0 for row in read_rows(out))
    assert [bool(row["diversity"]) for row in read_rows(out)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--cfg", "4"], r"holds results with --cfg 3.0; got 4.0\. Give the same setting, or another --out"),
        (["--cfg-source", "2"], "--cfg-source 1.0; got 2.0"),
        (["--inversion", "native"], "--inversion 'edit-friendly'; got 'native'"),
        (["--clip", "other"], "--clip 'openai/clip-vit-base-patch32'; got 'other'"),
        (["--model", "other", "--cfg", "3", "--cfg-source", "1"], "--model 'the demo model'; got '.*other'"),
        (["--config", "other"], "--config None; got '.*other'"),
        (["--steps", "5"], "--steps 4; got 5"),
        (["--skip", "1"], "--skip 2; got 1"),
        (["--negative", "blurred"], "--negative ''; got 'blurred'"),
        (["--eta", "0.5"], "--eta 1.0; got 0.5"),
        (["--solver", "dpmpp_2m_sde"], "--solver 'first_order'; got 'dpmpp_2m_sde'"),
        (["--seed", "1"], "--seed 0; got 1"),
        (["--seeds", "2"], "--seeds 1; got 2"),
        (["--size", "72"], "--size 64; got 72"),
        (["--device", "cpu:0"], "--device 'cpu'; got 'cpu:0'"),
        (["--dtype", "bfloat16"], "--dtype 'float32'; got 'bfloat16'"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(home, calls, more, words):
    out = evaluate(home, WORKING)
    before = (out / "results.csv").read_bytes(), (out / "settings.json").read_bytes()
    with pytest.raises(ValueError, match=words):
        evaluate(home, WORKING, *more)
    assert ((out / "results.csv").read_bytes(), (out / "settings.json").read_bytes()) == before


def test_another_chunk_goes_on_in_the_same_folder(home, calls):
    out = evaluate(home, WORKING)
    calls.clear()
    evaluate(home, WORKING, "--chunk", "1")
    assert calls == []
    assert json.loads((out / "settings.json").read_text())["chunk"] == 1


def test_a_file_is_named_by_all_that_makes_the_edit():
    """The names of earlier versions, which find their files again."""
    entry = Entry(3, "./a b.png", Path("a b.png"), "5f" * 32, "a star", ("a moon",))
    assert entry.file("a moon", 7) == "a-b-a-moon-seed7-b001e52c32.png"
    assert entry.source_file == "a-b-5f5f5f5f5f.png"
    for other, target, seed in (
        (replace(entry, digest="60" * 32), "a moon", 7),
        (replace(entry, source="a ring"), "a moon", 7),
        (entry, "A moon", 7),
        (entry, "a moon!", 7),
    ):
        assert other.file(target, seed)[-14:] != entry.file("a moon", 7)[-14:]
    assert entry.file("a moon", 8)[-14:] != entry.file("a moon", 7)[-14:]
    assert replace(entry, line=9, name="b.png", targets=()).file("a moon", 7) == entry.file("a moon", 7)


def test_prompts_guidance_and_the_negative_reach_the_inversion_and_the_edit(home, calls, demo_model, monkeypatch):
    asked, real = [], demo_model.guided

    def guided(prompt, *, guidance, negative):
        asked.append((prompt, guidance, negative))
        return real(prompt, guidance=guidance, negative=negative)

    monkeypatch.setattr(demo_model, "guided", guided)
    evaluate(home, WORKING, "--cfg-source", "2", "--cfg", "5", "--negative", "a blue ring")
    assert asked == [
        (caption(SCENE), 2.0, "a blue ring"),
        (GREEN, 5.0, "a blue ring"),
        (MOON, 5.0, "a blue ring"),
    ]


def test_the_settings_reach_the_inversion(home, calls, demo_model, monkeypatch):
    plans, real = [], jobs.invert_by

    def invert_by(method, denoise, x0, plan, **rest):
        plans.append((method, plan, tuple(x0.shape), rest))
        return real(method, denoise, x0, plan, **rest)

    monkeypatch.setattr(jobs, "invert_by", invert_by)
    more = ["--eta", "0.5", "--solver", "dpmpp_2m_sde", "--seed", "5", "--seeds", "2", "--chunk", "3"]
    evaluate(home, WORKING, *more)
    for seed, (method, plan, shape, rest) in zip((5, 6), plans, strict=True):
        assert plan == Plan(demo_model.sigmas(4), 2, 0.5, Solver.DPMPP_2M_SDE, seed=seed, guidance=1.0)
        assert (method, shape, rest) == ("edit-friendly", (1, 4, 8, 8), {"chunk": 3, "cap": 15.5})


def test_the_table_grows_row_by_row_and_is_put_in_order_at_once(home, calls, monkeypatch):
    """What the table has it keeps; a measured row stands behind the one that it replaces, until the
    end."""
    sizes, real = [], Table.append

    def append(self, rows):
        before = self.path.read_bytes() if self.path.exists() else b""
        real(self, rows)
        after = self.path.read_bytes()
        assert after.startswith(before)
        assert after.endswith(b"\n")
        sizes.append(after.count(b"\n") - 1)

    monkeypatch.setattr(Table, "append", append)
    out = evaluate(home, WORKING)
    assert sizes == [1, 2, 3, 4]
    assert [row["target_prompt"] for row in read_rows(out)] == [GREEN, MOON]
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "edits",
        "index.html",
        "report.md",
        "results.csv",
        "settings.json",
        "sources",
    ]


def test_a_table_of_another_version_is_refused(home, calls):
    out = evaluate(home, WORKING)
    text = (out / "results.csv").read_text()
    (out / "results.csv").write_text(text.replace("lpips", "lpips2", 1))
    with pytest.raises(ValueError, match="results.csv must begin with the columns image,.*of another version"):
        evaluate(home, WORKING)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("results.csv", "name,score\n", "results.csv; there is no settings.json of a run"),
        ("index.html", "<p>mine", "index.html; there is no settings.json of a run"),
        ("report.md", "# Mine", "report.md; there is no settings.json of a run"),
        ("settings.json", '{"theme": "dark", "seed": 1}', "settings.json; .*has other settings than a run's"),
        ("settings.json", "[]", "settings.json must hold a run's settings; it holds a list"),
        ("settings.json", "hello", "settings.json must hold a run's settings; it is no JSON"),
        ("settings.json", 100_000 * "[", "settings.json must hold a run's settings; it is no JSON"),
    ],
)
def test_a_folder_with_files_of_somebody_else_is_refused_and_left_as_it_is(home, calls, name, content, words):
    out = home / "out"
    out.mkdir()
    (out / name).write_text(content)
    with pytest.raises(ValueError, match=f"{out} holds files of somebody else .*{words}"):
        evaluate(home, WORKING)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == content


def test_texts_that_a_spreadsheet_would_take_for_formulas_are_written_as_text(home, calls):
    targets = ["=1+1", "@star", "+star", "-star", "'=x", "'star", "-3"]
    manifest = "- init_img: pictures/star.png\n  source_prompt: =a\n  target_prompts:\n"
    out = evaluate(home, manifest + "".join(f'    - "{target}"\n' for target in targets))
    written = read_rows(out)
    assert [row["target_prompt"] for row in written] == ["'=1+1", "'@star", "'+star", "'-star", "''=x", "'star", "-3"]
    assert {row["source_prompt"] for row in written} == {"'=a"}
    calls.clear()
    evaluate(home, manifest + "".join(f'    - "{target}"\n' for target in targets))  # the sheet finds them again
    assert calls == []
    assert [row["target_prompt"] for row in store.Table(out / "results.csv", written[0])] == targets


def test_another_clip_is_accepted_while_nothing_is_scored_and_a_folder_without_settings_is_not(
    home, calls, monkeypatch
):
    def absent(name, device):
        raise metrics.Unavailable("The CLIP score needs the model.")

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "load_clip", absent)
        out = evaluate(home, WORKING)
    assert "- The CLIP score needs the model." in (out / "report.md").read_text()
    evaluate(home, WORKING, "--clip", "folder")
    assert [float(row["clip"]) for row in read_rows(out)] == [len(GREEN), len(MOON)]
    (out / "settings.json").unlink()
    with pytest.raises(
        ValueError, match="files of somebody else .index.html, report.md, results.csv; there is no settings.json"
    ):
        evaluate(home, WORKING, "--clip", "folder")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--skip", "4"], r"--skip must lie in \[0, 3\] for 4 steps; got 4"),
        (["--eta", "2"], "--eta must be from 0 to 1; got 2"),
        (["--seed", str(2**64 - 1), "--seeds", "2"], r"--seed must lie in \[0, 2\^64\), with all the seeds from it on"),
        (["--threshold", "2"], "--threshold must be from 1e-06 to 1; got 2"),
        (["--steps", "2000"], r"steps must lie in \[1, 1000\]; got 2000"),
        (["--chunk", "0"], "--chunk must be 1 or more"),
        (["--seeds", "0"], "--seeds must be 1 or more; got 0"),
        (["--inversion", "ddim", "--seeds", "2"], "--seeds must be 1; got 2"),
        (
            ["--inversion", "sdedit", "--solver", "dpmpp_2m_sde"],
            "--inversion sdedit has --solver first_order only; got dpmpp_2m_sde",
        ),
        (["--device", "cuda:77"], "--device must be one that torch can use"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_edit_and_block_nothing(home, calls, more, words):
    with pytest.raises(ValueError, match=words):
        evaluate(home, WORKING, *more)
    assert calls == []
    assert not (home / "out" / "results.csv").exists()


def test_broken_entries_do_not_stop_a_run(home, calls, capsys):
    (home / "pictures" / "text.png").write_text("hello")
    cut = (home / "pictures" / "star.png").read_bytes()
    (home / "pictures" / "cut.png").write_bytes(cut[: len(cut) // 2])
    text = "".join(f"- {{init_img: pictures/{name}.png, target_prompts: [x, y]}}\n" for name in ("text", "none", "cut"))
    out = evaluate(home, text + WORKING)
    assert len(read_rows(out)) == 2
    told = capsys.readouterr().err
    for where in (told, (out / "report.md").read_text(), (out / "index.html").read_text()):
        assert all(
            re.search(words, where)
            for words in (
                r"line 1: .*text.png cannot be read",
                r"line 2: .*none.png is not there",
                r"line 3: .*cut.png cannot",
            )
        )
    assert "2 of 6 edits" in (out / "report.md").read_text()
    with pytest.raises(ValueError, match="no edit could be made"):
        evaluate(home, text, folder="other")


def test_an_edit_that_is_not_finite_or_too_large_for_the_memory_is_a_broken_entry(home, calls, monkeypatch):
    def fail(x0, *others, **options):
        raise errors.pop()

    monkeypatch.setattr(jobs, "invert_by", fail)
    for error, raised, words in (
        (ValueError("the model's prediction must be finite"), ValueError, "no edit could be made"),
        (RuntimeError("CUDA out of memory"), ValueError, "no edit could be made"),
        (RuntimeError("a mistake"), RuntimeError, "a mistake"),
    ):
        errors = [error]
        with pytest.raises(raised, match=words):
            evaluate(home, WORKING, "--inversion", "sdedit")
    errors = [ValueError("the model's prediction must be finite")]
    with pytest.raises(ValueError, match="no edit"):
        evaluate(home, WORKING, "--inversion", "sdedit")
    assert "- line 2: the model's prediction must be finite" in (home / "out" / "report.md").read_text()


class Reader(HTMLParser):
    """All tags, links and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.texts, self.alts = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        self.alts += [value for name, value in attributes if name == "alt"]
        assert tag != "img" or [name for name, _ in attributes] == ["src", "alt", "loading"]

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_the_sheet_shows_every_picture_and_escapes_every_text(home, calls):
    (home / "pictures" / "star.png").rename(home / "pictures" / "<i>&.png")
    text = f"""\
- init_img: pictures/<i>&.png
  source_prompt: '{NASTY} source'
  target_prompts: ['{NASTY}', '']
- '{NASTY}'
"""
    out = evaluate(home, text)
    page = Reader((out / "index.html").read_text(encoding="utf-8"))
    assert {"b", "script"}.isdisjoint(page.tags)
    assert page.tags.count("i") == 0
    assert {"pictures/<i>&.png", f"{NASTY} source", NASTY, "no prompt", "source picture"} <= set(page.texts)
    assert page.alts == ["source picture", NASTY, "no prompt"]
    assert len(page.links) == 6  # a source and two edits, each with a link
    for link in page.links:
        assert Image.open(out / link).size == (64, 64)
    for row in read_rows(out):
        assert {f"{float(row['psnr']):.2f}", f"{float(row['ssim']):.3f}"} <= set(page.texts)


def test_mean_and_standard_error_count_pictures():
    rows = [{"image": image, "x": value} for image, value in (("a", "1"), ("b", "2"), ("c", "6"), ("c", ""))]
    assert summary(rows, "x") == (3, pytest.approx(math.sqrt(7) / math.sqrt(3)), 3)  # one value each: s / sqrt(n)
    twice = [
        {"image": image, "x": value}
        for image, value in (("a", "1"), ("a", "1"), ("b", "2"), ("b", "2"), ("c", "6"), ("c", "6"))
    ]
    assert summary(twice, "x") == (
        3,
        pytest.approx(math.sqrt(7) / math.sqrt(3)),
        6,
    )  # the same edits again say nothing new
    assert summary(rows[:1], "x")[::2] == (1, 1)
    assert math.isnan(summary(rows[:1], "x")[1])
    assert math.isnan(summary([], "x")[0])


def test_ssim_is_left_out_without_kornia(home, calls, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.metrics", None)
    out = evaluate(home, WORKING)
    assert "- SSIM needs the package kornia" in (out / "report.md").read_text()
    assert [bool(row["psnr"]) > bool(row["ssim"]) for row in read_rows(out)] == [True, True]


def test_what_is_not_said_follows_from_the_model(demo_model):
    bare = argparse.ArgumentParser()
    options.add_model_options(bare)
    options.add_inversion_options(bare)
    unsaid, paper, said = (
        bare.parse_args(words.split())
        for words in ("", "--model sd", "--model sd --cfg 0 --cfg-source 2 --skip 0 --size 64")
    )
    fast = bare.parse_args(["--preset", "fast"])
    for args in (unsaid, paper, said, fast):
        options.fill_in(args)
    assert [(args.cfg_source, args.cfg) for args in (unsaid, paper, said)] == [(1, 3), (3.5, 15), (2, 0)]
    assert [(args.steps, args.skip) for args in (unsaid, said, fast)] == [(100, 36), (100, 0), (10, 4)]
    assert [options.side_of(args, demo_model) for args in (unsaid, said)] == [192, 64]


def test_every_way_of_editing_can_be_evaluated(home, calls, demo_model):
    """Its samples are those of the way, and the folder knows it."""
    cases = {  # samples of one inversion of two steps at guidance 1, and of each of two edits
        (): ([2], [2, 2]),
        ("--attention", "p2p", "--cross", "0.5", "--self-attention", "0"): ([2], [3, 2]),
        ("--guidance", "source", "--mask", "auto"): ([2], [2, 2, 2]),
        ("--mask", "diffedit"): ([2], [10, 10, 2, 2]),
        ("--attention", "zero"): ([2], [1, 1, 2] * 2),
    }
    for i, (more, (inverting, editing)) in enumerate(cases.items()):
        calls.clear()
        out = evaluate(home, WORKING, *more, folder=f"out{i}")
        assert calls == [*inverting, *editing, *editing], more
        kept = json.loads((out / "settings.json").read_text())
        assert all(kept[name.strip("-")] == value for name, value in zip(more[:2:2], more[1:2:2]))
        with pytest.raises(ValueError, match="holds results with --guidance"):
            evaluate(home, WORKING, *more, "--guidance", "negative" if "source" in more else "source", folder=out.name)


def test_a_folder_from_before_there_were_ways_goes_on_in_the_plain_one(home, calls):
    out = evaluate(home, WORKING)
    kept = json.loads((out / "settings.json").read_text())
    assert not {"guidance", "mask", "attention", "rate", "direction"} & kept.keys()
    with pytest.raises(ValueError, match="holds results with --mask None; got 'auto'"):
        evaluate(home, WORKING, "--mask", "auto")
    calls.clear()
    evaluate(home, WORKING)
    assert calls == []
