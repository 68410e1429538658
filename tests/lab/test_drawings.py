"""Own drawings, edited: what is drawn, and the sheet."""

import pytest
import torch
from PIL import Image

from ddpm_core.demo.scenes import FILLS, SHAPES, SIZE
from ddpm_core.lab import drawings
from ddpm_core.plan import Preset


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fill", FILLS)
def test_a_drawing_has_hard_edges_an_even_ground_and_its_fill(shape, fill):
    picture = drawings.draw(shape, fill, "red", "blue")
    assert picture.shape == (3, SIZE, SIZE)
    colors, count = picture.flatten(1).T.unique(dim=0, return_counts=True)
    assert len(colors) == (2 if fill == "plain" else 3)
    assert torch.equal(colors[count.argmax()], picture[:, 0, 0])
    assert count.min() > 50


def test_every_shape_is_another_drawing():
    drawn = [drawings.draw(shape, "plain", "red", "blue") for shape in SHAPES]
    assert all((a - b).abs().max() > 0 for i, a in enumerate(drawn) for b in drawn[:i])


@pytest.mark.slow
def test_the_sheet_shows_drawing_reconstruction_and_edit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(drawings, "DRAWINGS", drawings.DRAWINGS[3:5])
    monkeypatch.setattr(drawings, "DEMO", Preset(4, 1, 1.0, 3.0))
    monkeypatch.setattr("sys.argv", ["drawings", "--out", str(tmp_path / "sheet.png")])
    drawings.main()
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told[:2]] == [
        "a plain blue circle on a yellow background",
        "a plain yellow heart on a blue background",
    ]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 2 * SIZE
        assert sheet.height > 3 * SIZE
