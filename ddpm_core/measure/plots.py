"""Plots and tables of what was measured; matplotlib through its objects only, so that nothing of
the host's changes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..checks import BadArgument
from .pictures import from_image
from .stats import Statistics

# Okabe and Ito's colours, which stay apart for colour-blind eyes; a dash pattern each for print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1.5, 2)))
REFERENCE, INK, GRID = "#6b6b6b", "#222222", "#e4e4e4"
TABLE_ROWS = 9


def new_figure(width: float, height: float):
    """An empty white ``matplotlib.figure.Figure`` of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, facecolor="white", layout="constrained")


def axes_style(axes, title: str, across: str, up: str = "") -> None:
    """The look that all plots share: a title on the left, a light grid, no frame."""
    axes.set_title(title, color=INK, fontsize=13, loc="left")
    axes.set_xlabel(across, color=INK, fontsize=11)
    axes.set_ylabel(up, color=INK, fontsize=11)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=10, length=0)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)


def statistics_figure(named: Mapping[str, Statistics]):
    """A ``matplotlib.figure.Figure``: variance by step and correlation of neighbouring steps, one
    curve a name, over the schedule as it is sampled.

    The grey lines are what white noise gives, 1 and 0. Raises BadArgument where ``named`` is empty,
    ImportError without matplotlib.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if not named:
        raise BadArgument("named", "A figure of statistics needs one or more of them; got none.")
    figure = new_figure(10, 4)
    spread, correlation = figure.subplots(1, 2)
    for axes, title, level in (
        (spread, "Variance of each step's map", 1),
        (correlation, "Correlation with the next step's map", 0),
    ):
        axes.axhline(level, color=REFERENCE, linewidth=1.5, linestyle=(0, (2, 2)))
        axes_style(axes, title, "per cent of the schedule: noisy to clean")
        axes.set_xlim(102, -2)
    for i, (name, measures) in enumerate(named.items()):
        style = {
            "color": COLORS[i % len(COLORS)],
            "linestyle": DASHES[i % len(DASHES)],
            "linewidth": 2.2,
            "marker": "o",
            "markersize": 2.8,
        }
        times = measures.times
        spread.plot(times.tolist(), measures.variance.tolist(), label=name, **style)
        correlation.plot(((times[:-1] + times[1:]) / 2).tolist(), measures.correlation.tolist(), **style)
    spread.set_yscale("log")
    spread.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    spread.yaxis.set_minor_locator(NullLocator())
    spread.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    variances = torch.cat([measures.variance for measures in named.values()])
    spread.set_ylim(min(0.5, variances.min().item() / 1.3), max(20.0, variances.max().item() * 1.3))
    correlation.set_ylim(-1.05, 1.05)
    correlation.set_yticks([-1, -0.5, 0, 0.5, 1])
    handle = spread.get_lines()[0]
    handle.set_label("white noise, as sampling draws it")
    handles = [*spread.get_lines()[1:], handle]
    labels = [line.get_label() for line in handles]
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(len(handles), 4),
        frameon=False,
        fontsize=11,
        labelcolor=INK,
        handlelength=3,
    )
    return figure


def figure_picture(figure) -> Tensor:
    """A matplotlib figure, drawn: (3, H, W) in [0, 1]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return from_image(canvas.buffer_rgba())[:3]


def statistics_text(measures: Statistics) -> str:
    """A small table of the measures, about nine steps of them, and a sentence that says what they
    mean."""
    last = len(measures.times) - 1
    picked = sorted({round(i * last / (TABLE_ROWS - 1)) for i in range(TABLE_ROWS)})
    lines = ["per cent of  variance  correlation with", "the schedule            the next step"]
    for i in picked:
        correlation = f"{measures.correlation[i]:.2f}" if i < last else "-"
        lines.append(f"{measures.times[i]:12.0f}  {measures.variance[i]:8.2f}  {correlation:>16}")
    middle, mean = measures.variance.median().item(), measures.correlation.mean().item()
    lines.append(f"{'median, mean':>12}  {middle:8.2f}  {mean:16.2f}")
    lines.append(f"{'white noise':>12}  {1:8.2f}  {0:16.2f}")
    return "\n".join([*lines, "", _meaning(middle, mean)])


def _meaning(variance: float, correlation: float) -> str:
    if correlation < -0.25 and variance > 1.5:
        return (
            "These are edit-friendly maps: stronger than white noise, and each step partly takes back the one before. "
            "So they carry the picture's structure, and an edit keeps it."
        )
    if abs(correlation) < 0.1 and 0.5 < variance < 1.5:
        return (
            "These maps look like the white noise that sampling draws: the picture comes back, but they carry little "
            "of its structure, and edits lose it."
        )
    return (
        "These maps lie between edit-friendly ones (variance well above 1, correlation about -0.5) and the white noise "
        "that sampling draws (1 and 0)."
    )
