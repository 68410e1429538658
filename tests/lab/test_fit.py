"""The fit of masks to what a true edit changes."""

import pytest
import torch
from torch.testing import assert_close

from ddpm_core.lab.bench import fit
from ddpm_core.lab.bench.tasks import Task, random_tasks


def test_the_overlap_is_intersection_over_union_also_of_soft_masks():
    one, other = torch.zeros(2, 2, 1, 4, 4)
    one[0, :, :2], other[0, :, 1:3] = 1, 1
    one[1], other[1] = 0.5, 1
    assert_close(fit.overlap(one, other), torch.tensor([4 / 12, 0.5]))


def test_the_cells_that_change_are_where_the_drawings_differ():
    task = random_tasks(1, 5)[0]
    assert task.kind == "color"
    cells = fit.changed_cells([task, Task("color", task.source, task.source)], 8)
    assert cells.shape == (2, 1, 24, 24)
    assert 0 < cells[0].mean() < 0.5
    assert not cells[1].any()


@pytest.mark.slow
def test_it_prints_every_setting_the_best_first(capsys):
    fit.main(["--scenes", "4"])
    *rows, last = capsys.readouterr().out.strip().splitlines()[2:]
    assert len(rows) == len(fit.WINDOWS) * len(fit.THRESHOLDS) * len(fit.SOFTNESS)
    means = [float(row.split("|")[4]) for row in rows]
    assert means == sorted(means, reverse=True)
    assert 0.3 < means[0] <= 1
    assert last.startswith("least contrast of an edit: 0.")
