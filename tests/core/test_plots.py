"""Plots and tables of statistics: what they show, and that they leave matplotlib as it was."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.colors import to_rgb
from torch.testing import assert_close

from ddpm_core.measure.plots import COLORS, figure_picture, statistics_figure, statistics_text
from ddpm_core.measure.stats import Statistics

ROOT = Path(__file__).parents[2]


def made_up(variance, correlation, steps=20):
    """The same measures at every step."""
    times = torch.linspace(100, 100 / steps, steps, dtype=torch.float64)
    return Statistics(times, torch.full_like(times, variance), torch.full_like(times[1:], correlation))


EDIT_FRIENDLY, NATIVE = made_up(15.0, -0.5), made_up(1.0, 0.01)


def test_a_curve_a_name_and_the_lines_of_white_noise():
    variance, correlation = statistics_figure({"ours": EDIT_FRIENDLY, "theirs": NATIVE}).axes
    for axes, level, values in ((variance, 1, [15.0, 1.0]), (correlation, 0, [-0.5, 0.01])):
        reference, *curves = axes.get_lines()
        assert set(reference.get_ydata()) == {level}
        assert [set(curve.get_ydata()) for curve in curves] == [{value} for value in values]
        left, right = axes.get_xlim()
        assert left >= 100 > 0 >= right  # noisy on the left, as it is sampled
    assert variance.get_lines()[1].get_xdata()[0] == 100
    assert correlation.get_lines()[1].get_xdata()[0] == pytest.approx(97.5)  # between its two steps


def test_the_legend_names_every_curve_and_they_differ():
    names = [f"method {i}" for i in range(7)]
    figure = statistics_figure(dict.fromkeys(names, EDIT_FRIENDLY))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*names, "white noise, as sampling draws it"]
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()[1:]}) == 7


@pytest.mark.parametrize("variance", [0.01, 0.9, 15.0, 900.0])
def test_all_values_are_in_the_frame(variance):
    axes = statistics_figure({"maps": made_up(variance, 0.99)}).axes
    for axis, values in zip(axes, ((variance, 1), (0.99, 0))):
        low, high = axis.get_ylim()
        assert all(low < value < high for value in values)


def test_the_picture_shows_the_curves_in_their_colours():
    picture = figure_picture(statistics_figure({"ours": EDIT_FRIENDLY, "theirs": NATIVE}))
    assert picture.dim() == 3
    assert picture.shape[0] == 3
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert_close(picture[:, :3].flatten(1), torch.ones(3, 3 * picture.shape[2]))  # a white margin
    for color, seen in zip(COLORS, (True, True, False)):
        near = (picture - torch.tensor(to_rgb(color)).view(3, 1, 1)).abs().amax(0) < 0.02
        assert (near.sum().item() > 500) is seen


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="one or more"):
        statistics_figure({})


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.slow
def test_importing_it_needs_no_matplotlib_and_drawing_no_global_state():
    code = """
import sys
import torch
from ddpm_core.measure import plots
from ddpm_core.measure.stats import Statistics
print("matplotlib" in sys.modules)
import matplotlib
before = matplotlib.rcParams.copy()
measures = Statistics(torch.tensor([100.0, 50.0]), torch.ones(2), torch.zeros(1))
plots.figure_picture(plots.statistics_figure({"maps": measures}))
print("matplotlib.pyplot" in sys.modules, matplotlib.rcParams.copy() == before)
"""
    assert run(code) == ["False", "False", "True"]


def test_the_table_has_the_first_and_the_last_step_and_the_means():
    times = torch.tensor([64.0, 48.0, 32.0, 16.0])
    lines = statistics_text(
        Statistics(times, torch.tensor([4.0, 9.0, 7.0, 2.25]), torch.tensor([-0.5, -0.25, -0.75]))
    ).splitlines()
    rows = [line.split() for line in lines[2:8]]
    assert rows[:4] == [["64", "4.00", "-0.50"], ["48", "9.00", "-0.25"], ["32", "7.00", "-0.75"], ["16", "2.25", "-"]]
    assert rows[4][-2:] == ["4.00", "-0.50"]
    assert rows[5] == ["white", "noise", "1.00", "0.00"]


def test_the_table_of_many_steps_is_short():
    text = statistics_text(made_up(15.0, -0.5, steps=1000))
    assert len(text.splitlines()) == 15
    assert text.splitlines()[2].split()[0] == "100"
    assert text.splitlines()[10].split()[0] == "0"


@pytest.mark.parametrize(
    ("variance", "correlation", "words"),
    [
        (15.0, -0.5, "These are edit-friendly maps"),
        (1.04, 0.0, "look like the white noise"),
        (4.0, -0.1, "lie between"),
        (1.0, 0.4, "lie between"),
    ],
)
def test_the_sentence_says_what_it_means(variance, correlation, words):
    assert words in statistics_text(made_up(variance, correlation)).splitlines()[-1]
