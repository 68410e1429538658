"""The command line does the main job, and says what is wrong in one line."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_core.__main__ import main, parser
from ddpm_core.demo.scenes import caption, coverage, render, scene_with
from ddpm_core.lab import edit as command
from ddpm_core.lab import options
from ddpm_core.measure.pictures import load_picture, to_image

SCENE = scene_with(4, shape="star", fill="striped", color="red", background="blue")

SHOWN = scene_with(12, shape="star", fill="striped", color="red", background="blue")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "scene.png"
    to_image(render([SCENE])[0]).save(path)
    return path


def run_edit(picture, out, *more):
    return main(
        [
            "edit",
            "--image",
            str(picture),
            "--source",
            caption(SCENE),
            "--out",
            str(out),
            "--steps",
            "8",
            "--skip",
            "3",
            "--device",
            "cpu",
            *more,
        ]
    )


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.int16)


def test_edit_writes_the_edited_picture(picture, tmp_path, capsys):
    out = tmp_path / "edited.png"
    assert run_edit(picture, out, "--target", "a striped green star on a blue background") == 0
    assert capsys.readouterr().out.split() == [str(out)]
    assert pixels(out).shape == (192, 192, 3)
    assert np.abs(pixels(out) - pixels(picture)).mean() > 2


def test_the_source_as_target_gives_the_round_trip_through_the_autoencoder(picture, tmp_path):
    from ddpm_core.demo.model import FOLDER
    from ddpm_core.models.stable_diffusion import Pipeline

    out = tmp_path / "same.png"
    assert (
        run_edit(picture, out, "--target", caption(SCENE), "--cfg", "1", "--solver", "dpmpp_2m_sde", "--eta", "0.5")
        == 0
    )
    model = Pipeline.load(FOLDER)
    round_trip = to_image(model.decode(model.encode(load_picture(picture, 192, 8)))[0])
    assert np.abs(pixels(out) - np.asarray(round_trip, dtype=np.int16)).max() <= 1


def test_guidance_from_the_source_to_itself_gives_the_round_trip_at_any_strength(picture, tmp_path):
    plain, strong, other = tmp_path / "plain.png", tmp_path / "strong.png", tmp_path / "other.png"
    run_edit(picture, plain, "--target", caption(SCENE), "--cfg", "1")
    run_edit(picture, strong, "--target", caption(SCENE), "--guidance", "source", "--cfg", "7")
    run_edit(picture, other, "--target", "a plain green star on a blue background", "--guidance", "source")
    assert np.abs(pixels(strong) - pixels(plain)).max() <= 1
    assert np.abs(pixels(other) - pixels(plain)).max() > 50


def test_a_mask_by_itself_keeps_the_ground_and_lets_the_shape_change(picture, tmp_path):
    plain, masked, soft = tmp_path / "plain.png", tmp_path / "masked.png", tmp_path / "wide.png"
    target = ("--target", "a striped green star on a blue background", "--cfg", "5")
    run_edit(picture, plain, *target)
    run_edit(picture, masked, *target, "--mask", "auto")
    run_edit(picture, soft, *target, "--mask", "auto", "--threshold", "0.1", "--softness", "0", "--grow", "3")
    star = coverage([SCENE])[0, 0].numpy()
    change = {path: np.abs(pixels(path) - pixels(picture)).mean(-1) for path in (plain, masked, soft)}
    outside = {path: change[path][star == 0].mean() for path in change}
    assert outside[masked] < 0.8 * outside[plain]
    assert outside[masked] < outside[soft]
    assert change[masked][star == 1].mean() > 0.5 * change[plain][star == 1].mean()


def test_faithfulness_keeps_more(picture, tmp_path):
    free, held = tmp_path / "free.png", tmp_path / "held.png"
    target = ("--target", "a striped green star on a blue background", "--cfg", "5")
    run_edit(picture, free, *target)
    run_edit(picture, held, *target, "--faithfulness", "0.5")
    assert np.abs(pixels(held) - pixels(picture)).mean() < 0.8 * np.abs(pixels(free) - pixels(picture)).mean()


def test_several_targets_share_one_inversion_and_are_numbered(picture, tmp_path, capsys):
    targets = [
        "--target",
        "a plain red star on a blue background",
        "--target",
        "a striped red moon on a blue background",
    ]
    assert run_edit(picture, tmp_path / "e.png", *targets) == 0
    written = capsys.readouterr()
    assert written.out.split() == [str(tmp_path / "e-1.png"), str(tmp_path / "e-2.png")]
    assert "15/15" in written.err  # 5 steps inverted once, 5 edited twice
    assert (pixels(tmp_path / "e-1.png") != pixels(tmp_path / "e-2.png")).any()


def test_several_edits_at_once_make_one_picture(picture, tmp_path, capsys):
    out = tmp_path / "both.png"
    edits = [
        f"a striped {color} star on a {ground} background@4" for color, ground in (("green", "blue"), ("red", "pink"))
    ]
    assert run_edit(picture, out, *(word for edit in edits for word in ("--edit", edit)), "--mask", "auto") == 0
    assert capsys.readouterr().out.split() == [str(out)]
    assert np.abs(pixels(out) - pixels(picture)).mean() > 2


@pytest.mark.parametrize("text", ["a moon", "a moon@", "a moon@much", "@3", "a moon@inf"])
def test_an_edit_is_a_prompt_and_a_strength(picture, tmp_path, capsys, text):
    with pytest.raises(SystemExit):
        run_edit(picture, tmp_path / "out.png", "--edit", text)
    assert f"must be a prompt, @ and a number, like 'a red car@5'; got {text!r}" in capsys.readouterr().err


def test_a_picture_that_is_not_square_is_scaled_and_cut_to_whole_cells(picture, tmp_path):
    wide = tmp_path / "wide.jpg"
    Image.open(picture).resize((300, 170)).save(wide)
    assert load_picture(wide, 96, 8).shape == (1, 3, 96, 168)
    assert run_edit(wide, tmp_path / "out.png", "--target", "a moon", "--size", "96") == 0
    assert pixels(tmp_path / "out.png").shape == (96, 168, 3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "Either --target or --edit must be given"),
        (["--target", "x", "--edit", "y@3"], "Either --target or --edit must be given"),
        (["--edit", "x@3", "--attention", "masactrl"], "--edit goes without --attention and --direction"),
        (["--target", "x", "--model", "/absent"], "/absent does not exist"),
        (["--target", "x", "--steps", "8", "--skip", "9"], r"--skip must lie in \[0, 7\] for 8 steps; got 9"),
        (["--target", "x", "--steps", "2000"], r"steps must lie in \[1, 1000\]; got 2000"),
        (["--target", "x", "--eta", "3"], "--eta must be from 0 to 1; got 3"),
        (["--target", "x", "--image", "/absent.png"], "--image must be a picture file; /absent.png does not exist"),
        (["--target", "x", "--image", __file__], "must be a picture"),
        (["--target", "x", "--out", f"{__file__}/out.png"], "test_cli.py"),
        (["--target", "x", "--device", "cuda:77"], "--device must be one that torch can use"),
        (["--target", "x", "--out", "picture.psd"], "must end like a picture.*picture.psd"),
        (["--target", "x", "--out", "picture.psx"], "must end like a picture.*picture.psx"),
        (["--target", "x", "--out", "picture.xbm"], "must end like a picture.*picture.xbm"),
        (["--target", "x", "--out", "picture.h5"], "must end like a picture.*picture.h5"),
        (["--target", "x", "--image", "/"], "--image must be a picture file; / is a folder"),
    ],
)
def test_mistakes_end_with_one_line(picture, tmp_path, capsys, more, words):
    assert run_edit(picture, tmp_path / "out.png", *more) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(words, last)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--steps", "0"], "--steps must be 1 or more; got 0"),
        (["--steps", "-3"], "--steps must be 1 or more; got -3"),
        (["--cfg", "-1"], "--cfg must be 0 or more; got -1"),
        (["--cfg", "nan"], "--cfg must be 0 or more; got nan"),
        (["--cfg-source", "inf"], "--cfg-source must be 0 or more; got inf"),
        (["--eta", "3"], "--eta must be from 0 to 1; got 3"),
        (["--chunk", "0"], "--chunk must be 1 or more timesteps a call; got 0"),
        (["--seed", "-1"], r"--seed must lie in \[0, 2\^64\).*got -1"),
        (["--seed", str(2**64)], r"--seed must lie in \[0, 2\^64\).*got 18446744073709551616"),
        (["--faithfulness", "-0.1"], "--faithfulness must be 0 or more; got -0.1"),
        (["--threshold", "0"], "--threshold must be from 1e-06 to 1; got 0"),
        (["--softness", "nan"], "--softness must be 0 or more; got nan"),
        (["--grow", "-1"], "--grow must be 0 or more; got -1"),
        (["--device", "meta"], "--device must be one that torch can use here; got 'meta'"),
        (["--device", "nonsense"], "--device must be one that torch can use here; got 'nonsense'"),
        (["--source", "caf\udce9"], r"--source must be text in UTF-8; got 'caf\\udce9'"),
        (["--target", "\udcff"], r"--target must be text in UTF-8"),
        (["--negative", "\udcff"], r"--negative must be text in UTF-8"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_their_option_before_any_work(
    picture, tmp_path, capsys, monkeypatch, more, words
):
    monkeypatch.setattr(command, "load_model", None)
    assert run_edit(picture, tmp_path / "out.png", "--target", "x", "--skip", "0", *more) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: {words}", line)


def test_a_size_below_what_a_model_can_halve_is_refused(picture, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_edit(picture, tmp_path / "out.png", "--target", "x", "--size", "10")
    assert "argument --size: must be a number of pixels, 64 or more; got '10'" in capsys.readouterr().err


def test_steps_that_begin_far_below_the_noisy_end_are_said(capsys):
    args = parser("edit").parse_args([*"edit --image x --source x --target x --out x.png --steps".split(), "600"])
    options.fill_in(args)
    model = options.load_model(args)
    plan = options.plan_of(args, model)
    assert plan.sigmas[0] == model.sigma_of_timestep[600]  # 599, and the offset of 1
    assert "600 steps, evenly spaced, begin at timestep 600 of 1000" in (told := capsys.readouterr().err)
    assert "--steps 1000 begin near the top" in told
    for steps in (4, 8, 100, 333, 1000):
        args.steps, args.skip = steps, 0
        options.plan_of(args, model)
    assert capsys.readouterr().err == ""


def test_a_folder_in_the_place_of_a_picture_is_refused_before_any_work(picture, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "load_model", None)
    (tmp_path / "e-2.png").mkdir()
    assert run_edit(picture, tmp_path / "e.png", "--target", "x", "--target", "y") == 1
    assert f"--out must be a picture file; {tmp_path / 'e-2.png'} is a folder." in capsys.readouterr().err


def test_a_full_disk_leaves_the_picture_that_was_there(picture, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.png"
    before = out.write_bytes(picture.read_bytes())

    def full(self, file, **options):
        if isinstance(file, Path):
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert run_edit(picture, out, "--target", "x") == 1
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert out.stat().st_size == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "scene.png"]


def test_skip_follows_the_number_of_steps(picture, tmp_path, capsys):
    arguments = [
        "edit",
        "--image",
        str(picture),
        "--source",
        "",
        "--target",
        "",
        "--out",
        str(tmp_path / "o.png"),
        "--steps",
        "11",
        "--device",
        "cpu",
    ]
    assert main(arguments) == 0
    assert "14/14" in capsys.readouterr().err  # 36 % of 11 are 4: 7 steps inverted, 7 edited


def test_help_shows_the_papers_ranges(capsys):
    with pytest.raises(SystemExit):
        parser("edit").parse_args(["edit", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(
        words in shown for words in ("paper: 36, useful 0 to 40", "useful 7 to 18", "paper: 3.5", "1 is DDPM (paper)")
    )


@pytest.mark.slow
def test_demo_writes_one_labelled_picture(tmp_path, capsys):
    out = tmp_path / "new" / "demo.png"
    assert main(["demo", "--out", str(out), "--steps", "20"]) == 0
    assert str(out) in capsys.readouterr().out
    sheet = Image.open(out)
    assert sheet.width > 7 * 256
    panels = [
        np.asarray(sheet.crop((12 + i * 268, 12, 268 + i * 268, 268)).convert("RGB"), dtype=np.int16) for i in range(7)
    ]
    source, reconstruction, *edits = panels
    near = np.abs(source - reconstruction).mean()
    assert near < 8
    green, heart, yellow, shifted, pushed = edits
    assert all(near < np.abs(source - edit).mean() < 110 for edit in edits)
    assert yellow[4:30, 4:30, 2].mean() < source[4:30, 4:30, 2].mean() - 60  # the corner has lost its blue
    star = coverage([SHOWN])[0, 0].repeat_interleave(4, 0).repeat_interleave(4, 1)[::3, ::3].numpy() > 0.99
    for edit in (green, pushed):
        assert edit[star][:, 0].mean() < source[star][:, 0].mean() - 40  # the star has lost its red
    moved = np.roll(source, -43, axis=1)[:, 20:190]
    assert np.abs(shifted[:, 20:190] - moved).mean() < 0.6 * np.abs(source[:, 20:190] - moved).mean()


def test_a_direction_takes_the_place_of_the_target(picture, tmp_path, capsys):
    """Sentences of the same words: the target prompt is not read."""
    (tmp_path / "green.txt").write_text("a red star\na red ring\n->\na green star\na green ring\n")
    along = ("--direction", str(tmp_path / "green.txt"), "--guidance", "source", "--cfg", "5")
    for name, target in (("one", "x"), ("other", "a moon")):
        assert run_edit(picture, tmp_path / f"{name}.png", "--target", target, *along) == 0
    assert (pixels(tmp_path / "one.png") == pixels(tmp_path / "other.png")).all()
    star = coverage([SCENE])[0, 0].numpy() > 0.99
    red, _, _ = (pixels(tmp_path / "one.png") - pixels(picture))[star].mean(0)
    assert red < -40
    (tmp_path / "green.txt").write_text("a red star")
    assert run_edit(picture, tmp_path / "x.png", "--target", "x", *along) == 1
    assert "one line ->" in capsys.readouterr().err


def test_words_that_the_demo_model_does_not_know_are_said(picture, tmp_path, capfd):
    assert run_edit(picture, tmp_path / "cat.png", "--target", "a photo of a cat, red") == 0
    said = capfd.readouterr().err
    assert "note: the demo model does not know: photo, cat. " in said
    assert "sequence length" not in said
    assert run_edit(picture, tmp_path / "green.png", "--target", "a plain green circle on an orange background") == 0
    assert "does not know" not in capfd.readouterr().err


def test_the_turbo_preset_takes_4_steps_from_the_source_prompt(picture, tmp_path, capsys):
    def edit(out, target, *more):
        words = ["edit", "--image", str(picture), "--source", caption(SCENE), "--target", target]
        assert main([*words, "--out", str(out), "--device", "cpu", "--preset", "turbo", *more]) == 0
        assert "8/8" in capsys.readouterr().err  # 4 steps inverted, 4 edited
        return pixels(out)

    other = "a striped green star on a blue background"
    same = edit(tmp_path / "same.png", caption(SCENE), "--cap", "0")
    assert np.abs(same - edit(tmp_path / "strong.png", caption(SCENE), "--cap", "0", "--cfg", "7")).max() <= 1
    assert np.abs(same - edit(tmp_path / "capped.png", caption(SCENE), "--cap", "1")).max() > 10
    assert np.abs(same - edit(tmp_path / "other.png", other, "--cap", "0")).max() > 50
