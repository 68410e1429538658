"""The benchmark: its judge, its resuming, and a whole small run."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from ddpm_core.__main__ import main
from ddpm_core.demo.model import FOLDER
from ddpm_core.demo.scenes import BACKGROUNDS, COLORS, FILLS, SHAPES, Scene, candidates, random_scenes, render
from ddpm_core.lab.bench import command, edits, paper, plots, points, tables
from ddpm_core.lab.bench.methods import Inversion, cost, edit
from ddpm_core.lab.bench.settings import three_skips
from ddpm_core.lab.bench.shared import Shared
from ddpm_core.lab.bench.tasks import KINDS, Task, Truth, random_tasks
from ddpm_core.lab.editing import Mode
from ddpm_core.lab.store import Store, keep_settings
from ddpm_core.lab.tables import mean_and_error
from ddpm_core.models.stable_diffusion import Pipeline


@pytest.fixture(scope="module")
def model():
    return Pipeline.load(FOLDER)


def test_tasks_change_one_attribute_and_never_match_the_background():
    tasks = random_tasks(40, 1)
    assert [task.kind for task in tasks] == list(KINDS) * 10
    for task in tasks:
        changed = [
            name
            for name in ("shape", "fill", "color", "background", "x", "y", "radius", "angle", "dots")
            if _differs(task, name)
        ]
        assert changed == [task.kind]
        assert task.target.color != task.target.background
    assert random_tasks(40, 1) == tasks
    assert random_tasks(40, 2) != tasks


def _differs(task, name):
    return getattr(task.source, name) != getattr(task.target, name)


def test_every_candidate_is_the_drawing_of_its_scene():
    (scene,) = random_scenes(1, 8)
    drawn = candidates(scene, 48)
    for shape, fill, color, background in (("ring", "dotted", "teal", "pink"), ("heart", "plain", "red", "orange")):
        one = Scene(
            shape,
            fill,
            color,
            background,
            scene.x,
            scene.y,
            scene.radius,
            scene.angle,
            scene.shade_angle,
            scene.shade,
            scene.dots,
        )
        where = [
            list(table).index(value)
            for table, value in ((SHAPES, shape), (FILLS, fill), (COLORS, color), (BACKGROUNDS, background))
        ]
        assert_close(drawn[tuple(where)], render([one], 48)[0])


@pytest.mark.slow
def test_the_truth_scores_its_own_pictures():
    tasks = random_tasks(8, 2)
    truth = Truth(tasks)
    for figures in truth.score(truth.targets):
        assert figures["success"] == figures["exact"] == 1
        assert figures["target_psnr"] == math.inf
    for figures in truth.score(truth.sources):
        assert figures["success"] == figures["exact"] == 0
        assert figures["kept_psnr"] > 45  # what is kept differs by less than 1/255


def test_a_new_shape_may_be_turned_but_not_another_one():
    scene = Scene("square", "plain", "red", "blue", 0.5, 0.5, 0.27, 0.1, 0.0, 0.1)
    task = Task("shape", scene, Scene("heart", "plain", "red", "blue", 0.5, 0.5, 0.27, 0.1, 0.0, 0.1))
    truth = Truth([task])
    turned = render([Scene("heart", "plain", "red", "blue", 0.51, 0.49, 0.25, -0.3, 0.0, 0.1)])
    star = render([Scene("star", "plain", "red", "blue", 0.5, 0.5, 0.27, 0.1, 0.0, 0.1)])
    assert truth.score(turned)[0]["success"] == 1
    assert truth.score(star)[0]["success"] == 0


def test_noise_outside_lowers_what_is_kept_and_nothing_else():
    (task,) = random_tasks(1, 3)  # a colour: what must be kept is outside the shape
    truth = Truth([task])
    noisy = (
        truth.targets + 0.05 * truth.same * torch.randn(truth.targets.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(0, 1)
    (figures,) = truth.score(noisy)
    assert figures["success"] == 1
    assert 25 < figures["kept_psnr"] < 28  # 0.05 is 26 dB
    assert figures["kept_ssim"] < 0.9


def test_a_store_goes_on_after_a_stop(tmp_path):
    store = Store(tmp_path / "a.csv", ("task", "name"), ("figure",))
    store.append([{"task": 0, "name": "a", "figure": 1.5}, {"task": 1, "name": "a", "figure": math.nan}])
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(text + "2,a,0.")  # stopped while writing
    again = Store(tmp_path / "a.csv", ("task", "name"), ("figure",))
    assert (tmp_path / "a.csv").read_text() == text
    assert again.holds([{"task": 0, "name": "a"}, {"task": 1, "name": "a"}])
    assert not again.holds([{"task": 2, "name": "a"}])
    again.append([{"task": 1, "name": "a", "figure": 9.0}, {"task": 2, "name": "a", "figure": 2.5}])
    assert [row["figure"] for row in again.select(name="a")][::2] == [1.5, 2.5]
    assert len(again.rows) == 3
    with pytest.raises(ValueError, match="another version"):
        Store(tmp_path / "a.csv", ("task",), ("figure",))


def test_a_folder_belongs_to_its_settings(tmp_path):
    keep_settings(tmp_path / "out", {"scenes": 4, "seed": 1})
    keep_settings(tmp_path / "out", {"scenes": 4, "seed": 1})
    with pytest.raises(ValueError, match="scenes 4, now 8"):
        keep_settings(tmp_path / "out", {"scenes": 8, "seed": 1})


def point(name, kept, success, target=20.0):
    setting = dict(zip(points.SETTING, (name, 20.0, 1.0, 1.0, "first_order", 0.0, 7.0, 3.0)))
    mean = {
        "kept_psnr": kept,
        "success": success,
        "target_psnr": target,
        "exact": 0.0,
        "kept_ssim": 0.0,
        "samples": 1.0,
        "seconds": 1.0,
        "form_iou": 1.0,
    }
    return points.Point(setting, mean, dict.fromkeys(mean, 0.1), 10, {"color": success})


def test_the_frontier_leaves_out_what_is_beaten_and_is_interpolated():
    some = [point("a", 20, 0.8), point("a", 22, 0.6), point("a", 21, 0.5), point("a", 26, 0.2), point("a", 19, 0.7)]
    assert [(p.mean["kept_psnr"], p.mean["success"]) for p in points.frontier(some)] == [
        (20, 0.8),
        (22, 0.6),
        (26, 0.2),
    ]
    assert points.success_at(some, 21) == pytest.approx(0.7)
    assert points.success_at(some, 24) == pytest.approx(0.4)
    assert points.success_at(some, 15) == 0.8
    assert math.isnan(points.success_at(some, 27))


def test_the_plot_says_where_fewer_edits_were_measured():
    whole, part = point("whole", 27.0, 0.8), replace(point("part", 28.0, 0.7), count=4)
    figure = plots.tradeoff_figure({"whole": [whole], "part": [part]}, 40.0)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["whole", "part (4 edits)"]


def test_the_verdict_is_paired_and_says_who_wins():
    ours, rival = point("edit-friendly", 25, 0.8), point("native", 22, 0.7)
    rows = []
    for one, gain in ((ours, 1.0), (rival, 0.0)):
        rows += [
            {
                **one.setting,
                "task": t,
                "target_psnr": 10 * t + gain,
                "success": 0.5,
                "kept_psnr": 20 - 2 * gain + 0.1 * (t % 2) * gain,
            }
            for t in range(8)
        ]
    text = tables.verdicts(rows, [ours, rival], [ours, rival])
    assert "at 25.0 dB kept" not in text
    assert "none of its settings keeps 25.0 dB" in text
    assert "+1.0 +- 0.0 dB nearer to the truth (better)" in text
    assert "points of success (no clear difference)" in text
    assert "dB kept (worse)" in text


def test_success_is_compared_where_both_keep_as_much():
    """Ours has one setting at 21 dB, the rival's frontier runs from 20 dB to 24 dB through it, 0.25
    lower."""
    mine, low, high = point("edit-friendly", 21, 0.75), point("native", 20, 0.6), point("native", 24, 0.2)
    high.setting["skip"] = 9.0
    rows = []
    for one, success, kept in ((mine, (1, 1, 1, 0), 21.0), (low, (1, 1, 0, 0), 20.0), (high, (1, 0, 0, 0), 24.0)):
        rows += [
            {**one.setting, "task": t, "success": success[t % 4], "kept_psnr": kept + 0.01 * (t % 3)} for t in range(40)
        ]
    difference, error = points.matched(rows, [mine], [low, high], 21.0)
    assert difference == pytest.approx(0.75 - (0.5 - 0.25 / 4), abs=0.01)
    assert 0.02 < error < 0.15
    assert math.isnan(points.matched(rows, [mine], [low], 21.0)[0])


def test_costs_are_what_the_unet_saw(model):
    x0 = torch.zeros(2, 4, 24, 24)
    with cost(model) as inverting:
        maps = Inversion(steps=6).run(model, x0, ["a plain red star", "a plain blue ring"], skip=2)
    assert inverting.samples == 2 * 4
    with cost(model) as editing:
        edit(model, maps, ["a plain red star", "a plain blue ring"], 3.0)
    assert editing.samples == 2 * 4 * 2
    for inversion, samples in (
        (Inversion("ddim", 6, corrections=1), 16),
        (Inversion("sdedit", 6), 0),
        (Inversion("native", 6, cfg_source=3.5), 16),
    ):
        with cost(model) as inverting:
            inversion.run(model, x0, ["a plain red star", "a plain blue ring"], skip=2)
        assert inverting.samples == samples
    assert not model.pipe.unet._forward_pre_hooks


@pytest.mark.slow
def test_an_inversion_is_shared_out_to_the_skips_that_it_serves(model):
    """4 steps are inverted: all of them for skip 2, and half of them for skip 4."""
    tasks = random_tasks(2, 5)
    truth = Truth(tasks)
    sweep = edits.Sweep(Inversion(steps=6), (4, 2), (3.0,))
    shared = Shared(model, truth, model.encode(truth.sources))
    rows = list(edits._measure(model, sweep, 8, [0, 1], shared, 2))
    assert [(row["task"], row["skip"], row["samples"]) for row in rows] == [
        (8, 4, 2 + 2 * 2),
        (9, 4, 2 + 2 * 2),
        (8, 2, 4 + 2 * 4),
        (9, 2, 4 + 2 * 4),
    ]
    assert [row["kind"] for row in rows] == [task.kind for task in tasks] * 2
    assert all(row["seconds"] > 0 for row in rows)


def test_what_must_be_kept_is_where_no_channel_changes():
    truth = Truth(random_tasks(8, 6))
    change = (truth.sources - truth.targets).abs()
    kept = truth.same.bool().expand_as(change)
    assert change[kept].max() <= 1 / 255
    assert (change.amax(1, keepdim=True)[~truth.same.bool()] > 1 / 255).all()
    for channel in range(3):  # no channel says it alone
        assert (truth.same != (change[:, channel : channel + 1] <= 1 / 255)).any()


def test_shifted_maps_come_near_the_truly_shifted_scene(model, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 15)
    monkeypatch.setattr(paper, "SHIFTS", (1, 8))
    scenes = random_scenes(2, 21)
    store = Store(tmp_path / "s.csv", paper.SHIFT_KEY, paper.SHIFT_MEASURES)
    paper.measure_shifts(model, scenes, store, lambda n: None)
    assert len(store.rows) == 2 * 2 * len(paper.SHIFTS)
    ours = {
        cells: mean_and_error(row["psnr_moved"] for row in store.select(method="edit-friendly", cells=cells))[0]
        for cells in (1, 8)
    }
    assert ours[1] > 24
    assert ours[1] > ours[8]


@pytest.mark.slow
def test_a_pushed_colour_arrives_and_the_rest_stays(model, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 30)
    monkeypatch.setattr(paper, "COLOR_SKIP", 15)
    monkeypatch.setattr(paper, "STRENGTHS", (0.05, 0.4))
    monkeypatch.setattr(paper, "SDEDIT_SKIPS", (20,))
    (scene,) = random_scenes(1, 4)
    store = Store(tmp_path / "c.csv", paper.COLOR_KEY, paper.COLOR_MEASURES)
    paper.measure_colors(model, [replace(scene, fill="striped")], store, lambda n: None)
    (weak,), (strong,), (rival,) = (
        store.select(method=f"{name}, lights kept", setting=value)
        for name, value in (("push", 0.05), ("push", 0.4), ("SDEdit", 20))
    )
    assert (weak["reached"], strong["reached"], rival["reached"]) == (0, 1, 1)
    assert strong["inside_rmse"] < 0.6 * weak["inside_rmse"]
    assert strong["texture"] > 0.4
    assert strong["outside_psnr"] > 22


def test_the_maps_of_scenes_have_the_papers_statistics(model, tmp_path):
    store = Store(tmp_path / "m.csv", paper.MAPS_KEY, paper.MAPS_MEASURES)
    paper.measure_maps(model, random_scenes(2, 4), 20, store)
    found = paper.statistics_of(store.rows)
    ours, native = found["edit-friendly"], found["native"]
    assert ours.variance.median() > 3
    assert -0.6 < ours.correlation.mean() < -0.4
    assert native.variance.median() == pytest.approx(1, abs=0.1)
    assert native.correlation.abs().mean() < 0.05


def test_the_toy_is_the_papers():
    found = {name: paper.toy_angles(maps) for name, maps in paper.toy(points=800).items()}
    assert found["edit-friendly"].mean() == pytest.approx(119, abs=2)
    assert (found["edit-friendly"] > 90).double().mean() == pytest.approx(0.74, abs=0.02)
    assert found["native"].mean() == pytest.approx(90, abs=1.5)


@pytest.fixture
def tiny(monkeypatch):
    """A run small enough for a test: the real parts at few steps."""
    monkeypatch.setattr(
        command, "QUICK", command.Size(scenes=4, stepped=4, seeded=4, seeds=2, pairs=1, drawings=1, steps=5, shown=2)
    )
    monkeypatch.setattr(
        command,
        "SWEEPS",
        [command.Sweep(Inversion(method, 5), (2,), (3.0,)) for method in ("edit-friendly", "native", "sdedit")],
    )
    few = (2,), (3.0,)
    modes = [
        Mode(1.0, mask="auto"),
        Mode(1.0, guidance="source", mask="auto"),
        Mode(1.0, attention="p2p", guidance="source", mask="auto"),
    ]
    ways = [command.Sweep(Inversion(steps=5), (skip,), (3.0,), mode) for skip, mode in zip((1, 2, 2), modes)]
    zero = Mode(1.0, attention="zero")
    monkeypatch.setattr(
        command, "WAYS", [*ways, command.Sweep(Inversion(steps=5), *few, zero, kinds=("shape",), along=True)]
    )
    monkeypatch.setattr(command, "RIVALS", [command.Sweep(Inversion("sdedit", 5), *few, Mode(1.0, mask="diffedit"))])
    monkeypatch.setattr(command, "SERIES", {"first order": [three_skips(5)]})
    monkeypatch.setattr(paper, "STEPS", 6)
    monkeypatch.setattr(paper, "COLOR_SKIP", 3)
    monkeypatch.setattr(paper, "SDEDIT_SKIPS", (4,))
    monkeypatch.setattr(paper, "STRENGTHS", (0.2,))
    monkeypatch.setattr(paper, "SHIFTS", (1, 2))


@pytest.mark.slow
def test_a_whole_run_writes_its_report_and_goes_on_where_it_was(tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "bench"
    assert main(["bench", "--quick", "--out", str(out)]) == 0
    text = (out / "report.md").read_text()
    for name in (
        "edit-friendly",
        "native",
        "SDEdit",
        "push, flat",
        "against native",
        "edit-friendly + mask + guidance from the source",
        "SDEdit + DiffEdit's mask",
        "## Two edits at once",
        "## Shifts",
        "## Colours",
        "mean angle 1",
    ):
        assert name in text
    assert "nan" not in text
    table = (out / "settings.csv").read_text().splitlines()
    assert len(table) == 1 + 1 + 3 + 4 + 1
    assert table[0].startswith("name,steps,cfg_source")
    assert table[2].startswith("edit-friendly,5.0,1.0")
    for name in ("tradeoff", "ways", "steps", "shifts", "colors", "statistics", "toy", "contact", "ways_contact"):
        assert f"({name}.png)" in text
        assert (out / f"{name}.png").stat().st_size > 5000
    kept = Store(out / "edits.csv", edits.KEY, edits.COLUMNS)
    assert len(kept.rows) == 4 * (1 + 3 + 3 + 1) + 1  # one of the four is of a shape
    lines = (out / "edits.csv").read_text().splitlines()
    (out / "edits.csv").write_text("\n".join(lines[:-3]) + "\n")  # three rows of what comes last are lost
    asked = []
    real = edits._measure
    monkeypatch.setattr(
        edits, "_measure", lambda model, sweep, *rest: asked.append(sweep.name) or real(model, sweep, *rest)
    )
    assert main(["bench", "--quick", "--out", str(out)]) == 0
    assert asked == ["SDEdit + DiffEdit's mask"]
    again = Store(out / "edits.csv", edits.KEY, edits.COLUMNS)
    assert [row["target_psnr"] for row in again.rows] == [row["target_psnr"] for row in kept.rows]
    assert main(["bench", "--out", str(out)]) == 1
    assert "other settings" in capsys.readouterr().err


def test_too_few_scenes_are_refused(tmp_path, capsys):
    assert main(["bench", "--scenes", "3", "--out", str(tmp_path / "x")]) == 1
    assert "--scenes must be 4 or more" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
