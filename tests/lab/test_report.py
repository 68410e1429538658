"""The arithmetic behind the report, on tables small enough to check by hand."""

import csv
import math

import pytest
import torch

from ddpm_core.lab.bench import command, edits, pairs, paper, points, tables
from ddpm_core.lab.bench.edits import Sweep
from ddpm_core.lab.bench.methods import Inversion
from ddpm_core.lab.bench.points import MEANS, SETTING, best, matched, paired, points_of, relative_time
from ddpm_core.lab.bench.settings import Size
from ddpm_core.lab.store import Store
from ddpm_core.lab.tables import markdown, mean_and_error, mean_over_pairs, number
from ddpm_core.measure.metrics import psnr

OURS, NATIVE = Inversion("edit-friendly"), Inversion("native")
ROUNDS = (1.0, 2.0, 50.0, 4.0)  # seconds of four tasks of the first method
KINDS = ("color", "background", "shape", "fill")


def rows_of(inversion, skip, cfg, *, success, kept, target, exact=None, ssim=0.5, form=1.0, samples=10, seconds=ROUNDS):
    """A row a task: a measure is one value for all tasks, or a value each."""
    count = max(len(value) for value in (success, kept, target, seconds) if isinstance(value, tuple))
    measures = {"success": success, "exact": success if exact is None else exact, "kept_psnr": kept}
    measures |= {"form_iou": form, "kept_ssim": ssim, "target_psnr": target, "samples": samples, "seconds": seconds}
    rows = edits.keys(0, count, inversion, skip, cfg)
    for i, row in enumerate(rows):
        row["kind"] = KINDS[i % 4]
        row |= {name: float(value[i] if isinstance(value, tuple) else value) for name, value in measures.items()}
    return rows


def sweep():
    """Two methods at several settings. The nearest to the truth is neither the first nor the last
    one tried, neither the most successful nor the one that keeps most."""
    return [
        *rows_of(OURS, 4, 3.0, success=(1, 1, 1, 1), kept=20, target=(21, 21, 23, 23), ssim=0.6),
        *rows_of(
            OURS,
            8,
            3.0,
            success=(1, 1, 1, 0),
            exact=(1, 0, 0, 0),
            kept=(23, 25, 23, 25),
            target=(24, 26, 24, 26),
            ssim=0.75,
            samples=36,
        ),
        *rows_of(OURS, 12, 3.0, success=(0, 1, 0, 0), kept=28, target=22, ssim=0.9),
        *rows_of(NATIVE, 4, 3.0, success=(1, 0, 0, 0), kept=22, target=18, seconds=(9.0, 9.0, 9.0, 9.0)),
        *rows_of(
            NATIVE,
            8,
            3.0,
            success=(0, 1, 1, 0),
            exact=(0, 1, 1, 1),
            kept=(18, 20, 18, 20),
            target=(19, 21, 19, 21),
            ssim=0.25,
            samples=48,
            seconds=(2.0, 10.0, 60.0, 8.0),
        ),
        *rows_of(NATIVE, 8, 5.0, success=(1, 1, 1, 0), kept=19, target=19, seconds=(9.0, 9.0, 9.0, 9.0)),
    ]


def cells(table):
    """A Markdown table as rows of its columns."""
    head, line, *body = [row.strip("| ").split(" | ") for row in table.splitlines()]
    assert set(line) == {"---"}
    return [dict(zip(head, row, strict=True)) for row in body]


def chosen_of(rows):
    of_all = points_of(rows)
    return of_all, [best(points.of_method(of_all, name)) for name in ("edit-friendly", "native")]


def test_a_point_has_the_means_and_errors_of_its_setting():
    rows = sweep()
    mixed = rows[::2] + rows[1::2]  # settings and tasks in no order
    point = next(p for p in points_of(mixed) if (p.setting["name"], p.setting["skip"]) == ("edit-friendly", 8))
    assert point.count == 4
    expected = {"success": 0.75, "exact": 0.25, "kept_psnr": 24, "kept_ssim": 0.75, "target_psnr": 25}
    assert point.mean == {**expected, "form_iou": 1, "samples": 36, "seconds": 57 / 4}
    assert point.error["success"] == pytest.approx(0.25)  # s = 1/2 of four
    assert point.error["target_psnr"] == pytest.approx(math.sqrt(4 / 3) / 2)
    assert point.error["samples"] == 0
    assert point.by_kind == {"color": 1, "background": 1, "shape": 1, "fill": 0}
    assert point.label == "20 steps, skip 8, cfg 3"
    assert len(points_of(rows)) == 6


def test_the_best_setting_is_the_one_nearest_to_the_truth():
    of_all, chosen = chosen_of(sweep())
    assert [(p.setting["name"], p.setting["skip"], p.setting["cfg"]) for p in chosen] == [
        ("edit-friendly", 8, 3),
        ("native", 8, 3),
    ]
    assert best(reversed(of_all)) is best(of_all)


def test_the_table_of_edits():
    rows = sweep()
    of_all, chosen = chosen_of(rows)
    seed_rows = {
        "edit-friendly": [{"diversity": 10.0, "back_psnr": 30.0}, {"diversity": 12.0, "back_psnr": 34.0}],
        "native": [{"diversity": 20.0, "back_psnr": 29.0}],
    }
    assert cells(tables.edits_table(rows, chosen, of_all, seed_rows)) == [
        {
            "method": "edit-friendly",
            "settings": "3",
            "best setting": "20 steps, skip 8, cfg 3",
            "success, %": "75 +- 25",
            "exact, %": "25 +- 25",
            "kept, dB": "24.0 +- 0.6",
            "kept, SSIM": "0.750",
            "to the truth, dB": "25.0 +- 0.6",
            "given back, dB": "32.0",
            "diversity": "11.0",
            "success at 24.0 dB kept, %": "75",
            "UNet samples": "36",
            "time": "1.00",
        },
        {
            "method": "native",
            "settings": "3",
            "best setting": "20 steps, skip 8, cfg 3",
            "success, %": "50 +- 29",
            "exact, %": "75 +- 25",
            "kept, dB": "19.0 +- 0.6",
            "kept, SSIM": "0.250",
            "to the truth, dB": "20.0 +- 0.6",
            "given back, dB": "29.0",
            "diversity": "20.0",
            "success at 24.0 dB kept, %": "-",
            "UNet samples": "48",
            "time": "2.00",  # of the four ratios 2, 5, 1.2 and 2
        },
    ]


def test_the_table_of_edits_interpolates_success_at_what_ours_keeps():
    rows = sweep() + rows_of(NATIVE, 12, 3.0, success=(1, 0, 0, 0), kept=29, target=10)
    of_all, chosen = chosen_of(rows)
    seed_rows = dict.fromkeys(("edit-friendly", "native"), [{"diversity": 0.0, "back_psnr": 0.0}])
    table = cells(tables.edits_table(rows, chosen, of_all, seed_rows))
    # from 3/4 at 19 dB to 1/4 at 29 dB
    assert [row["success at 24.0 dB kept, %"] for row in table] == ["75", "50"]


def test_the_time_is_the_median_ratio_of_the_batches():
    """The ratios' mean is 2.55, the ratio of the medians 3, that of the sums 80 / 57."""
    _, (ours, native) = chosen_of(sweep())
    assert relative_time(sweep(), native, ours) == 2
    assert relative_time(sweep(), ours, native) == 0.5


@pytest.mark.parametrize(
    ("mean", "words"),
    [(2.1, "better"), (1.9, "no clear difference"), (-1.9, "no clear difference"), (-2.1, "worse")],
)
def test_clear_is_what_exceeds_two_standard_errors(mean, words):
    """Differences mean + 3 and mean - 3 in turn, ten of them: their standard error is 1."""
    gains = tuple(mean + 3 * (-1) ** i for i in range(10))
    same = {"seconds": 1.0, "success": (1,) * 10}
    rows = rows_of(NATIVE, 8, 3.0, kept=20, target=30, **same)
    rows += rows_of(
        OURS, 8, 3.0, kept=tuple(20 - gain for gain in gains), target=tuple(30 + gain for gain in gains), **same
    )
    of_all = points_of(rows)
    native, ours = of_all
    assert paired(rows, ours, native, "target_psnr") == (pytest.approx(mean), pytest.approx(1))
    text = tables.verdicts(rows, [ours, native], of_all)
    assert text.startswith("- against native: ")
    assert f"{mean:+.1f} +- 1.0 dB nearer to the truth ({words})" in text
    opposite = {"better": "worse", "worse": "better"}.get(words, words)
    assert text.endswith(f"{-mean:+.1f} +- 1.0 dB kept ({opposite})")
    assert "+0.0 +- 0.0 points of success (no clear difference)" in text


@pytest.mark.parametrize(("wins", "words"), [(4, "no clear difference"), (6, "better")])
def test_the_bootstraps_error_is_that_of_a_paired_mean(wins, words):
    """Where all settings keep the same, the difference of success is a mean over tasks, and its
    error that of the paired differences: here 1 in ``wins`` of 30 tasks, and -1 in one."""
    mine, others = [1.0] * wins + [0.0] * (30 - wins), [0.0] * 29 + [1.0]
    rows = rows_of(OURS, 8, 3.0, success=tuple(mine), kept=24, target=20, seconds=1.0)
    rows += rows_of(NATIVE, 8, 3.0, success=tuple(others), kept=24, target=20, seconds=1.0)
    ours, native = points_of(rows)
    difference, error = matched(rows, [ours], [native], 24.0)
    mean = (wins - 1) / 30
    expected = math.sqrt(((wins + 1) / 30 - mean**2) / 30)
    assert difference == pytest.approx(mean)
    assert error == pytest.approx(expected, rel=0.1)
    line = f"at 24.0 dB kept {100 * mean:+.0f} +- {100 * error:.0f} points of success ({words})"
    assert line in tables.verdicts(rows, [ours, native], [ours, native])


def test_the_bootstrap_moves_whole_tasks():
    """Both methods succeed on the same tasks: whatever is drawn, they differ by nothing."""
    success = (1.0,) * 7 + (0.0,) * 13
    rows = rows_of(OURS, 8, 3.0, success=success, kept=24, target=20, seconds=1.0)
    rows += rows_of(NATIVE, 8, 3.0, success=success, kept=24, target=20, seconds=1.0)
    ours, native = points_of(rows)
    assert matched(rows, [ours], [native], 24.0) == (0, 0)


def test_the_tables_of_steps_settings_and_kinds():
    rows = sweep()
    of_all, chosen = chosen_of(rows)
    assert cells(tables.steps_table({"first order": [of_all[:3]], "other": [of_all[3:]]}, 22.0)) == [
        {
            "solver": "first order",
            "steps": "20",
            "best skip": "8",
            "UNet samples": "36",
            "to the truth, dB": "25.0 +- 0.6",
            "success, %": "75 +- 25",
            "kept, dB": "24.0 +- 0.6",
            "success at 22.0 dB kept, %": "88",  # between 100 at 20 dB and 75 at 24 dB
        },
        {
            "solver": "other",
            "steps": "20",
            "best skip": "8",
            "UNet samples": "48",
            "to the truth, dB": "20.0 +- 0.6",
            "success, %": "50 +- 29",
            "kept, dB": "19.0 +- 0.6",
            "success at 22.0 dB kept, %": "25",
        },
    ]
    listed = cells(tables.settings_table(of_all))
    assert [row["skip"] for row in listed] == ["4", "8", "12", "4", "8", "8"]
    assert listed[4] == {
        "method": "native",
        "steps": "20",
        "skip": "8",
        "cfg source": "1",
        "cfg": "3",
        "eta": "1",
        "solver": "first_order",
        "success, %": "50 +- 29",
        "kept, dB": "19.0 +- 0.6",
        "SSIM": "0.250",
        "to the truth, dB": "20.0 +- 0.6",
        "UNet samples": "48",
    }
    assert cells(tables.kinds_table(chosen)) == [
        {"success, %": "edit-friendly", "color": "100", "background": "100", "shape": "100", "fill": "0"},
        {"success, %": "native", "color": "0", "background": "100", "shape": "100", "fill": "0"},
    ]


def test_the_spreadsheet_has_every_measure_in_its_column():
    of_all = points_of(sweep())
    lines = list(csv.DictReader(tables.settings_csv(of_all).splitlines()))
    assert tuple(lines[0])[: len(SETTING)] == SETTING
    for line, point in zip(lines, of_all, strict=True):
        assert line["scenes"] == "4"
        for name in MEANS:
            assert float(line[name]) == pytest.approx(point.mean[name], rel=1e-4)
            assert float(line[f"{name}_error"]) == pytest.approx(point.error[name], rel=1e-4)


def test_means_of_shifts_and_colours_are_taken_setting_by_setting():
    rows = [
        {"method": method, "cells": shift, "psnr": value, "part": value / 100}
        for method, shift, values in (
            ("ours", 1.0, (20.0, 24.0)),
            ("ours", 8.0, (10.0, math.nan)),
            ("native", 1.0, (5.0, 5.0)),
        )
        for value in values
    ]
    assert cells(tables.means_table(rows, ("method", "cells"), {"psnr": "all, dB", "part": "kept"})) == [
        {"method": "ours", "cells": "1", "all, dB": "22.0 +- 2.0", "kept": "0.22 +- 0.02"},
        {"method": "ours", "cells": "8", "all, dB": "10.0", "kept": "0.10"},
        {"method": "native", "cells": "1", "all, dB": "5.0 +- 0.0", "kept": "0.05 +- 0.00"},
    ]


def test_numbers_and_tables_in_markdown():
    assert number(0.756, 0, 0.25, 100) == "76 +- 25"
    assert number(24.06, 1, math.nan) == "24.1"
    assert number(math.nan, 1, 2.0) == "-"
    assert markdown(("a", "b"), [("1", "2"), ("3", "4")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"


def test_means_and_errors_leave_out_what_was_not_measured():
    mean, error = mean_and_error([1.0, 2.0, 3.0, math.nan])
    assert mean == 2
    assert error == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(mean_and_error([math.nan])[0])
    assert mean_and_error([5.0])[0] == 5
    assert math.isnan(mean_and_error([5.0])[1])


def test_errors_count_groups():
    """Three groups with deviations -4, 1 and 3 in sum, of five values."""
    mean, error = mean_and_error([1.0, 3.0, 5.0, 4.0, 7.0], "aabbc")
    assert mean == 4
    assert error == pytest.approx(math.sqrt(3 / 2 * (16 + 1 + 9)) / 5)
    assert math.isnan(mean_and_error([1.0, 3.0], "aa")[1])


def test_diversity_is_taken_over_the_pairs_of_seeds():
    pictures = [torch.full((3, 4, 4), value) for value in (0.0, 0.1, 0.3)]
    assert edits.diversity(pictures) == pytest.approx(255 * math.sqrt((0.01 + 0.04 + 0.09) / 3), rel=1e-5)
    assert edits.diversity(pictures[:1]) == 0
    assert mean_over_pairs([1, 2, 5], lambda one, other: other - one) == pytest.approx((1 + 3 + 4) / 3)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_the_masked_psnr_is_of_all_three_channels(channel):
    """An error of 0.3 in one channel, in the half that counts, and of 0.9 in the other half."""
    picture, mask = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    other = picture.clone()
    other[:, channel, :, :2], other[:, :, :, 2:] = 0.3, 0.9
    assert psnr(picture, other, mask).item() == pytest.approx(-10 * math.log10(0.3**2 / 3), abs=1e-4)


def test_the_texture_is_a_correlation_of_luminances_inside():
    generator = torch.Generator().manual_seed(0)
    picture, source = (torch.rand(1, 3, 8, 8, generator=generator) for _ in range(2))
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:] = 1
    lights = [0.2126 * p[0, 0] + 0.7152 * p[0, 1] + 0.0722 * p[0, 2] for p in (picture, source)]
    expected = torch.corrcoef(torch.stack([light[:, 2:].flatten() for light in lights]))[0, 1].item()
    assert paper._texture(picture, source, mask) == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """A bench of two methods, with rows in its stores and no model."""
    monkeypatch.setattr(command, "SWEEPS", [Sweep(OURS, (4, 8, 12), (3.0,)), Sweep(NATIVE, (4, 8), (3.0, 5.0))])
    monkeypatch.setattr(command, "WAYS", [])
    monkeypatch.setattr(command, "RIVALS", [])
    few, more = Inversion(steps=10), Inversion(steps=50)
    monkeypatch.setattr(command, "SERIES", {"first order": [Sweep(few, (2, 5), (3.0,)), Sweep(more, (10, 25), (3.0,))]})
    bench = command.Bench(None, Size(scenes=4, stepped=4, seeded=4, drawings=1, steps=5, shown=2), tmp_path)
    bench.edits.append(sweep())
    bound = rows_of(Inversion(edits.BOUND, 0), 0, 0.0, success=1, kept=35, target=(34, 34, 36, 36), ssim=0.987)
    bench.edits.append(bound)
    bench.edits.append(rows_of(NATIVE, 4, 5.0, success=0, kept=(1, 1, 1, 1), target=1))
    bench.steps.append(rows_of(few, 2, 3.0, success=1, kept=20, target=21))
    bench.steps.append(rows_of(few, 5, 3.0, success=(1, 0, 0, 0), kept=26, target=20))
    bench.steps.append(rows_of(more, 10, 3.0, success=1, kept=21, target=22))
    bench.steps.append(rows_of(more, 25, 3.0, success=0.5, kept=23.5, target=24))
    return bench


def test_every_method_is_chosen_at_its_best_setting(bench, monkeypatch):
    assert [point.label for point in bench.chosen(bench.sweeps)] == ["20 steps, skip 8, cfg 3"] * 2
    asked = []
    for module, name in ((paper, "measure_maps"), (paper, "measure_shifts"), (paper, "measure_colors")):
        monkeypatch.setattr(module, name, lambda *arguments: None)
    monkeypatch.setattr(edits, "run", lambda *arguments: None)
    monkeypatch.setattr(edits, "run_bound", lambda *arguments: None)
    monkeypatch.setattr(pairs, "measure", lambda *arguments: None)
    monkeypatch.setattr(edits, "run_seeds", lambda model, batches, settings, *rest: asked.extend(settings))
    bench.measure()
    assert asked == [(OURS, 8, 3.0), (NATIVE, 8, 3.0)]


def test_the_report_has_the_bound_the_level_and_the_rows_of_several_seeds(bench, monkeypatch):
    for inversion, apart in ((OURS, 7.0), (NATIVE, 9.0)):
        for skip in (4, 8):  # only those of the best setting count
            measures = {"kind": "color", "diversity": apart + skip - 8, "back_psnr": 30.0 + skip}
            bench.seeds.append({**key, **measures} for key in edits.keys(0, 4, inversion, skip, 3.0))
    times = [
        {"method": m, "time": t, "variance": 4.0, "correlation": -0.5}
        for m in ("edit-friendly", "native")
        for t in (9, 5)
    ]
    bench.maps.append(times)
    shifts = [{"scene": 0, "cells": c, "psnr_moved": 20.0, "psnr_vacated": 10.0, "psnr": 15.0} for c in paper.SHIFTS]
    bench.shifts.append({**row, "method": method} for row in shifts for method in ("edit-friendly", "native"))
    measures = {"reached": 1.0, "inside_rmse": 9.0, "texture": 0.5, "outside_psnr": 25.0}
    bench.colors.append([{"scene": 0, "method": "push, flat", "setting": 0.2, **measures}])

    class Sheet:
        def save(self, path):
            pass

    monkeypatch.setattr(bench, "contact_sheet", lambda sweeps: Sheet())
    toy = paper.toy(points=50)
    monkeypatch.setattr(paper, "toy", lambda: toy)
    bench.write()
    text = (bench.out / "report.md").read_text()
    assert "the autoencoder does: 35.0 dB, SSIM 0.987, 35.0 dB to the truth." in text
    ours, native = cells(text[text.index("| method | settings") :].split("\n\n")[0])
    assert (ours["diversity"], native["diversity"]) == ("7.0", "9.0")
    assert (ours["given back, dB"], native["given back, dB"]) == ("38.0", "38.0")
    assert (ours["settings"], native["settings"]) == ("3", "4")
    steps = cells(text[text.index("| solver | steps") :].split("\n\n")[0])
    level = "success at 23.5 dB kept, %"  # what the most steps of the first solver keep at their best
    assert [(row["steps"], row["best skip"], row[level]) for row in steps] == [("10", "2", "56"), ("50", "25", "50")]
    assert "edit-friendly: median variance 4.0, mean correlation of neighbours -0.50" in text
    assert "| push, flat | 0.2 | 1.00 | 9.0 | 0.50 | 25.0 |" in text


def test_rows_of_other_settings_stay_out_of_a_sweeps_points(tmp_path):
    store = Store(tmp_path / "a.csv", edits.KEY, edits.COLUMNS)
    store.append(sweep())
    (point,) = command.points_of_sweep(store, Sweep(NATIVE, (8,), (5.0,)))
    assert (point.setting["name"], point.setting["skip"], point.setting["cfg"]) == ("native", 8, 5)
    assert point.mean["target_psnr"] == 19
