"""The benchmark's ways of editing: what they share, what they cost, and what the report says that
they are worth."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from ddpm_core import Plan, invert, replay
from ddpm_core.demo.model import FOLDER
from ddpm_core.demo.scenes import caption, random_scenes, render
from ddpm_core.lab.bench import edits, pairs, worth
from ddpm_core.lab.bench.command import Bench
from ddpm_core.lab.bench.edits import Batches, Sweep
from ddpm_core.lab.bench.methods import Inversion, cost
from ddpm_core.lab.bench.points import points_of
from ddpm_core.lab.bench.settings import QUICK, Size
from ddpm_core.lab.bench.tasks import Truth, random_tasks
from ddpm_core.lab.editing import WIDE, Mode
from ddpm_core.lab.store import Store
from ddpm_core.models.stable_diffusion import Pipeline
from ddpm_core.models.zero_shot import attention_gradient

PLAIN, MASK = Mode(1.0), Mode(1.0, mask="auto")
KINDS = ("color", "background", "shape", "fill")


@pytest.fixture(scope="module")
def model():
    return Pipeline.load(FOLDER)


def few(mode=PLAIN, **more):
    """Two of four steps, guidance 3."""
    return Sweep(Inversion(steps=4), (2,), (3.0,), mode, **more)


def test_a_way_has_its_parts_in_its_name():
    both = Mode(1.0, mask="auto", guidance="source")
    names = {
        few(): "edit-friendly",
        few(Mode(1.0, **WIDE)): "edit-friendly + wide mask",
        few(both): "edit-friendly + mask + guidance from the source",
        few(replace(both, attention="p2p")): "edit-friendly + Prompt-to-Prompt + mask + guidance from the source",
        few(Mode(1.0, attention="zero"), along=True): "edit-friendly + direction + pix2pix-zero",
        Sweep(Inversion("ddim", 4), (2,), (3.0,), Mode(1.0, mask="diffedit")): "DDIM + DiffEdit's mask",
    }
    assert [sweep.name for sweep in names] == list(names.values())


def test_a_way_is_measured_on_its_own_edits():
    tasks = random_tasks(8, 1)
    assert few(kinds=("color", "fill")).numbers(tasks) == [0, 3, 4, 7]
    assert few().numbers(tasks) == list(range(8))


def test_a_direction_is_made_of_captions_that_differ_in_one_word():
    for task in random_tasks(4, 2):
        sources, targets = task.sentences
        assert len(sources) == len(targets) == len(set(sources)) == 12
        old, new = (getattr(scene, task.kind) for scene in (task.source, task.target))
        for one, other in zip(sources, targets):
            assert old in one.split()
            changed = [pair for pair in zip(one.split(), other.split(), strict=True) if pair[0] != pair[1]]
            assert [pair for pair in changed if pair not in (("a", "an"), ("an", "a"))] == [(old, new)]
            for words in (one.split(), other.split()):
                assert words[2] != words[-2]  # of the shape and of its background


def test_the_form_is_the_sources_where_only_colour_and_fill_change():
    tasks = random_tasks(12, 3)
    truth = Truth(tasks)
    kept = truth.form_iou((truth.targets + 0.03 * torch.randn(truth.targets.shape)).clamp(0, 1))
    other = [replace(t.target, shape="ring" if t.target.shape != "ring" else "square", fill="plain") for t in tasks]
    lost, nothing = truth.form_iou(render(other)), truth.form_iou(0.6 * truth.grounds)  # all in the shadow
    for task, right, wrong, none in zip(tasks, kept, lost, nothing):
        if task.kind in ("color", "fill"):
            assert right > 0.84 > 0.6 > wrong  # a facet in the shade can look like a ground of its hue
            assert none == 0
        else:
            assert all(map(math.isnan, (right, wrong, none)))
    some = truth.form_iou(render(other)[[4, 3]], [4, 3])
    assert some == [lost[4], lost[3]]


def test_the_form_is_intersection_over_union():
    """A picture with half of the shape's cells away from the ground, and as many elsewhere."""
    (task,) = random_tasks(1, 3)
    truth = Truth([task])
    form, cells = truth.forms[0], truth.forms[0].nonzero()
    picture = truth.grounds.clone()
    half = len(cells) // 2
    away = (~form).nonzero()[:half]
    for y, x in [*cells[:half].tolist(), *away.tolist()]:
        spot = picture[0, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        spot.copy_((spot < 0.5).float())
    assert truth.form_iou(picture) == [pytest.approx(half / (len(cells) + half))]


@pytest.mark.slow
def test_ways_share_what_they_have_in_common_and_count_it_each(model, tmp_path):
    """Four edits, two of four steps: one inversion and one mask for all, and each row has the samples
    of an edit alone."""
    tasks = random_tasks(4, 5)
    sweeps = {
        few(): 2 + 4,
        few(MASK): 2 + 2 + 4,
        few(Mode(1.0, mask="auto", guidance="source")): 2 + 2 + 4,
        few(Mode(1.0, attention="p2p"), kinds=("color", "fill")): 2 + 6,
        few(Mode(1.0, attention="masactrl", start=0.0), kinds=("shape",)): 2 + 6,
        few(Mode(1.0, attention="zero", guidance="source"), along=True, kinds=("shape",)): 2 + 2 * (2 + 1 + 2),
        Sweep(Inversion("sdedit", 4), (2,), (3.0,), Mode(1.0, mask="diffedit")): 20 + 4,
    }
    store, heard = Store(tmp_path / "e.csv", edits.KEY, edits.COLUMNS), []
    batches = Batches(model, tasks)
    with cost(model) as taken:
        edits.run(model, batches, list(sweeps), store, None, heard.append)
    counts = [4, 4, 4, 2, 1, 1, 4]
    assert [len(store.select(name=sweep.name)) for sweep in sweeps] == counts
    for sweep, samples in sweeps.items():
        rows = store.select(name=sweep.name)
        assert {row["samples"] for row in rows} == {samples}, sweep.name
        assert [row["kind"] for row in rows] == [kind for kind in KINDS if kind in sweep.kinds]
        assert [row["task"] for row in rows] == [i for i, kind in enumerate(KINDS) if kind in sweep.kinds]
    assert taken.samples == 4 * (2 + 2 + 20) + 4 * 4 * 4 + 3 * 6 + 1 * 10
    assert sum(heard) == edits.samples_of(list(sweeps), tasks)
    assert sum(heard) - 10 * sum(counts) == pytest.approx(taken.samples, abs=6)  # part of a step with attention control
    with cost(model) as again:
        edits.run(model, batches, list(sweeps), store, None, heard.append)
    assert again.samples == 0


def test_a_backward_pass_counts_as_a_sample(model):
    x, words, sigma = torch.randn(2, 4, 8, 8), model.embed("a red star"), torch.full((2,), 2.0)
    with cost(model) as taken:
        attention_gradient(model, (x, words), (x, words), sigma)
    assert taken.samples == 2 + 2 + 2


def test_the_whole_bench_stays_a_matter_of_hours(tmp_path):
    """About 30 samples a second are what one core does."""
    about = Bench(None, Size(), tmp_path).estimate()
    assert all(count > 0 for count in about.values())
    assert sum(about.values()) < 4 * 3600 * 30
    assert sum(Bench(None, QUICK, tmp_path / "quick", quick=True).estimate().values()) < 25_000


def rows_of(sweep, skip, success, kept, *, samples=30.0, target=20.0, form=1.0, numbers=None):
    numbers = range(len(success)) if numbers is None else numbers
    rows = edits.keys_of(sweep, 0, numbers, skip, 3.0)
    for row, value in zip(rows, success):
        row |= {"kind": KINDS[int(row["task"]) % 4], "success": value, "exact": 0.0, "kept_psnr": kept}
        row |= {"kept_ssim": 0.5, "target_psnr": target, "form_iou": form, "samples": samples, "seconds": 1.0}
    return rows


def two_ways():
    """Forty edits. At 27 dB plain ones have .4, those with a mask .8, and Prompt-to-Prompt, on every
    other edit, .9; at 26 dB the mask has .9."""
    plain, mask, p2p = few(), few(MASK), few(Mode(1.0, attention="p2p"))
    rows = rows_of(plain, 1, [1, 1, 1, 0, 0] * 8, 26.0, target=20.0)
    rows += rows_of(plain, 2, [1, 0, 0, 0, 0] * 8, 28.0, target=19.0, samples=10.0)
    rows += rows_of(mask, 1, [1.0] * 40, 25.0, target=18.0, samples=60.0)
    rows += rows_of(mask, 2, [1, 1, 1, 1, 0] * 8, 27.0, target=21.5, samples=48.0, form=0.9)
    rows += rows_of(p2p, 2, [1, 1, 1, 1, 0, 1, 1, 1, 1, 1] * 2, 27.0, samples=40.0, numbers=range(0, 40, 2))
    return rows, {s.name: [p for p in points_of(rows) if p.setting["name"] == s.name] for s in (plain, mask, p2p)}


def cells(table):
    head, line, *body = [row.strip("| ").split(" | ") for row in table.splitlines()]
    assert set(line) == {"---"}
    return [dict(zip(head, row, strict=True)) for row in body]


def test_the_table_says_what_a_way_adds_and_costs():
    rows, ways = two_ways()
    bases = dict.fromkeys(ways, "edit-friendly")
    plain, mask, p2p = cells(worth.worth_table(rows, ways, bases))
    assert (plain["against"], plain["adds there, points"], plain["costs"]) == ("-", "-", "+0")
    assert plain["success at 27 dB kept, %"] == "40"
    assert mask["best setting"] == "4 steps, skip 2, cfg 3"
    assert (mask["edits"], mask["success, %"], mask["form kept, IoU"]) == ("40", "80 +- 6", "0.90 +- 0.00")
    assert mask["success at 27 dB kept, %"] == "80"
    assert mask["adds there, points"].startswith("+40 +- ")
    assert mask["adds there, points"].endswith("(better)")
    assert mask["adds, dB to the truth"] == "+1.5 +- 0.0 (better)"
    assert (mask["UNet samples"], mask["costs"]) == ("48", "+18")
    # on the twenty edits that both have, plain ones have .6 at 26 dB and .2 at 28 dB
    assert p2p["edits"] == "20"
    assert p2p["adds there, points"].startswith("+50 +- ")


def test_the_goals_are_reckoned_from_the_rows():
    rows, ways = two_ways()
    plain, mask = ways["edit-friendly"], ways["edit-friendly + mask"]
    assert worth.leader(ways) == "edit-friendly + mask"  # Prompt-to-Prompt is not measured on all
    lines = list(worth.goal_lines(rows, plain, ways, {"native": plain, "DDIM": mask[:1]}))
    assert lines[0] == "- the most success at 27 dB kept, 80 %, has edit-friendly + mask"
    assert lines[1].startswith("- against plain edits there, in points: +40 +- ")
    assert lines[1].endswith("(better); the goal is +20: reached")
    assert lines[2].startswith("- against native there, in points: +40")
    assert lines[3] == "- against DDIM there: none of its settings keeps as much"
    assert lines[4] == "- at 26 dB kept 90 %; the goal is 90 %: reached"
    (_, line, _) = worth.goal_lines(rows, plain[:1], ways, {})
    assert line == "- against plain edits there: none of their settings keeps as much"
    alone = {"edit-friendly": plain}
    lines = list(worth.goal_lines(rows, plain, alone, {}))
    assert lines == [
        "- the most success at 27 dB kept, 40 %, has edit-friendly",
        "- at 26 dB kept 60 %; the goal is 90 %: not reached",
    ]
    assert list(worth.goal_lines(rows, mask[:1], {"x": mask[:1]}, {})) == ["- no way keeps 27 dB"]


def test_a_gain_below_the_goal_is_not_reached():
    rows, ways = two_ways()
    mask = ways["edit-friendly + mask"]
    weak = few(Mode(1.0, guidance="source"))
    rows += rows_of(weak, 2, [1, 1, 1, 0, 0] * 7 + [1, 1, 1, 1, 0], 27.0)
    ways = {"weak": [p for p in points_of(rows) if p.setting["name"] == weak.name], "strong": mask}
    lines = list(worth.goal_lines(rows, ways["weak"], ways, {}))
    assert "+18 +- " in lines[1]
    assert lines[1].endswith("the goal is +20: not reached")


def test_a_mask_is_compared_where_plain_edits_keep_the_most():
    rows, ways = two_ways()
    ways = {name: ways[name] for name in ("edit-friendly", "edit-friendly + mask")}
    strong = rows_of(few(MASK), 3, [1, 1, 1, 0, 0] * 8, 28.0)
    ways["edit-friendly + mask"] = points_of([row for row in rows if "mask" in row["name"]] + strong)
    lines = list(worth.far_lines(rows + strong, ways, ways))
    # .6 at 28.0 dB against .2 there; the mask's own 28.0 dB are reached by plain edits too
    assert lines[0].startswith("- edit-friendly against edit-friendly + mask at 28.0 dB kept, in points: -40 +-")
    assert lines[1].startswith("- edit-friendly + mask against edit-friendly at 28.0 dB kept, in points: +40 +-")
    assert len(lines) == 2


def test_attention_control_is_compared_with_the_same_without_it(tmp_path):
    bases = Bench(None, Size(), tmp_path).bases()
    both, plain = "edit-friendly + mask + guidance from the source", "edit-friendly"
    assert bases["edit-friendly + Prompt-to-Prompt + mask + guidance from the source"] == both
    assert bases["edit-friendly + direction + pix2pix-zero + guidance from the source"] == (
        "edit-friendly + direction + guidance from the source"
    )
    assert bases["edit-friendly + Prompt-to-Prompt"] == bases[both] == bases[plain] == plain
    assert bases["DDIM + DiffEdit's mask"] == plain


def test_a_rival_has_all_its_settings_with_masks_and_without(tmp_path):
    bench = Bench(None, Size(), tmp_path)
    for sweep in bench.edited:
        for skip, cfg in sweep.settings:
            (row,) = rows_of(sweep, skip, [1.0], 25.0)
            bench.edits.append([{**row, "cfg": cfg}])
    families = bench.families()
    assert list(families) == ["native", "DDIM", "DDIM, source cfg 3.5", "DDIM, 2 corrections", "SDEdit"]
    names = {name: {point.setting["name"] for point in points} for name, points in families.items()}
    assert names["DDIM"] == {"DDIM", "DDIM + DiffEdit's mask"}
    assert names["native"] == {"native", "native + mask"}


def test_pairs_of_edits_never_hide_the_shape():
    drawn = pairs.random_pairs(30, 4)
    for pair in drawn:
        for parts in (["color"], ["background"], ["color", "background"]):
            target = pair.target(parts)
            assert target.color != target.background
            changed = [
                name
                for name in ("shape", "fill", "color", "background", "x", "dots")
                if getattr(pair.source, name) != getattr(target, name)
            ]
            assert changed == parts
    assert pairs.random_pairs(30, 4) == drawn != pairs.random_pairs(30, 5)


def test_one_edit_of_several_without_a_mask_is_guidance_from_the_source(model):
    scenes = random_scenes(2, 6)
    sources, targets = ([caption(replace(s, fill=fill)) for s in scenes] for fill in ("plain", "dotted"))
    x0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = invert(model.denoiser(sources, guidance=1.0), x0, Plan(model.sigmas(4), skip=1))
    everywhere = torch.ones(2, 1, 8, 8)
    ours = pairs.edited(model, maps, sources, [(targets, everywhere)])
    denoise = model.denoiser_from_source(sources, targets, guidance=pairs.CFG, source_guidance=1.0)
    assert_close(ours, model.decode(replay(denoise, maps)), rtol=0, atol=1e-4)
    both = pairs.edited(model, maps, sources, [(targets, everywhere), (targets, 0 * everywhere)])
    assert_close(both, ours, rtol=0, atol=1e-3)
    none = pairs.edited(model, maps, sources, [(targets, 0 * everywhere)])
    assert_close(none, model.decode(x0), rtol=0, atol=1e-3)


def test_the_table_of_two_edits_is_paired_by_scene():
    rows = []
    for scene in range(10):
        for part, alone, together in (("color", scene < 8, scene < 7), ("background", True, True)):
            rows.append({"scene": scene, "edit": part, "way": "alone", "success": float(alone), "samples": 48.0})
            rows.append({"scene": scene, "edit": part, "way": "together", "success": float(together), "samples": 72.0})
    color, background = cells(pairs.table(rows))
    assert (color["alone: success, %"], color["together: success, %"]) == ("80 +- 13", "70 +- 15")
    assert color["difference, points"] == "-10 +- 10 (no clear difference)"
    assert background["difference, points"] == "+0 +- 0 (no clear difference)"
    assert (color["alone: UNet samples"], color["together: UNet samples"]) == ("48", "72")


@pytest.mark.slow
def test_two_edits_are_measured_alone_and_together(model, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "SKIP", 16)
    (pair,) = pairs.random_pairs(1, 2)
    store, heard = Store(tmp_path / "p.csv", pairs.KEY, pairs.MEASURES), []
    pairs.measure(model, [pair], store, heard.append)
    rows = {(row["edit"], row["way"]): row["samples"] for row in store.rows}
    inverting, masking = 4, 4
    alone, together = inverting + masking + 4 * 2, inverting + 2 * masking + 4 * 3
    assert rows == {(part, way): n for part in pairs.PARTS for way, n in (("alone", alone), ("together", together))}
    with cost(model) as again:
        pairs.measure(model, [pair], store, heard.append)
    assert again.samples == 0
    assert heard == [pairs.SAMPLES] * 2
