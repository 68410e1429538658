"""The batch command: what is made, kept and gone on with, by one process, by several, on Ray, and
whatever is killed meanwhile."""

import argparse
import csv
import errno
import importlib.util
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import Bare, Chore
from PIL import Image

from ddpm_core.__main__ import main
from ddpm_core.demo.scenes import caption, render, scene_with
from ddpm_core.lab.batch import drive, jobs, proof, scale
from ddpm_core.lab.batch.folder import Folder, lock
from ddpm_core.lab.batch.jobs import Failure
from ddpm_core.lab.batch.local import Here, Processes
from ddpm_core.lab.batch.manifest import read_manifest
from ddpm_core.lab.store import Table
from ddpm_core.measure.pictures import to_image

COLORS = ("red", "green", "yellow")
TARGETS = ("a plain red moon on a blue background", "a dotted red star on a blue background")
SMALL = ("--steps", "4", "--skip", "2", "--size", "64", "--device", "cpu")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo_model():
    return jobs.load_model(argparse.Namespace(model=None, config=None, device="cpu", dtype="float32"))


@pytest.fixture
def one_model(monkeypatch, demo_model):
    """The model is loaded once for all tests; the list has an item for each time that a run asks for
    it."""
    asked = []
    monkeypatch.setattr(jobs, "load_model", lambda args: asked.append(args) or demo_model)
    return asked


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of three pictures with what they show beside them."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, color in enumerate(COLORS):
        scene = scene_with(number, shape="star", fill="striped", color=color, background="blue")
        to_image(render([scene])[0]).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption(scene) + "\n")
    return folder


@pytest.fixture(scope="module")
def manifest(pictures):
    path = pictures / "set.yaml"
    targets = [word for target in TARGETS for word in ("--target", target)]
    assert main(["manifest", str(pictures), *targets, "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def plain(manifest, one_thread, tmp_path_factory):
    """The folder of a run by one process."""
    out = tmp_path_factory.mktemp("plain")
    assert batch(manifest, out, "--seeds", "2") == 0
    return out


def batch(manifest, out, *more):
    return main(["batch", "--manifest", str(manifest), "--out", str(out), *SMALL, *more])


def files(folder):
    """{path: bytes} of all that a run leaves."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(out):
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_manifest_of_a_folder_has_its_pictures_in_order_with_what_lies_beside_them(tmp_path, capsys):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/2.JPG", "a.png", "b/1.webp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "b" / "1.txt").write_text('a "star"\n\n: yes\n')
    (tmp_path / "notes.txt").write_text("no picture")
    out = tmp_path / "new" / "set.yaml"
    assert (
        main(["manifest", str(tmp_path), "--source", "all", "--target", "x: y", "--target", "z", "--out", str(out)])
        == 0
    )
    entries, broken, unknown = read_manifest(out)
    assert [(entry.image.relative_to(tmp_path).as_posix(), entry.source) for entry in entries] == [
        ("a.png", "all"),
        ("b/1.webp", 'a "star" : yes'),
        ("b/c/2.JPG", "all"),
    ]
    assert {entry.targets for entry in entries} == {("x: y", "z")}
    assert (broken, unknown) == ([], [])
    assert main(["manifest", str(tmp_path), "--target", "x", "--out", str(out)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["manifest", str(tmp_path / "new"), "--target", "x", "--out", str(tmp_path / "s.yaml")]) == 1
    assert "must hold pictures" in capsys.readouterr().err


def test_every_edit_is_the_one_that_edit_makes(pictures, manifest, plain, one_model, tmp_path, capsys):
    rows = rows_of(plain)
    assert [(row["image"], row["seed"], row["target_prompt"]) for row in rows] == [
        (str(pictures / f"{number}.png"), seed, target) for number in range(3) for seed in "01" for target in TARGETS
    ]
    page = (plain / "index.html").read_text()
    assert "12 of 12 edits" in page
    assert all(row["picture"] in page for row in rows)
    assert sorted(path.name for path in plain.iterdir()) == [
        ".lock",
        "edits",
        "index.html",
        "results.csv",
        "settings.json",
        "sources",
    ]
    row, out = rows[7], tmp_path / "edit.png"
    arguments = ["edit", "--image", row["image"], "--source", row["source_prompt"], "--target", row["target_prompt"]]
    assert main([*arguments, "--seed", row["seed"], *SMALL, "--out", str(out)]) == 0
    assert out.read_bytes() == (plain / row["picture"]).read_bytes()


def test_a_mode_of_edit_is_one_of_batch(manifest, plain, one_model, tmp_path, capsys):
    mode = ("--guidance", "source", "--mask", "auto", "--threshold", "0.3", "--faithfulness", "0.1")
    assert batch(manifest, tmp_path / "set", *mode) == 0
    row, out = rows_of(tmp_path / "set")[1], tmp_path / "edit.png"
    arguments = ["edit", "--image", row["image"], "--source", row["source_prompt"], "--target", row["target_prompt"]]
    assert main([*arguments, *mode, *SMALL, "--out", str(out)]) == 0
    assert out.read_bytes() == (tmp_path / "set" / row["picture"]).read_bytes()
    assert out.read_bytes() != (plain / row["picture"]).read_bytes()
    assert batch(manifest, tmp_path / "set") == 1
    assert "holds results with --guidance 'source'; got None" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_made_is_not_made_again_and_what_is_lost_is(manifest, plain, one_model, tmp_path, capsys):
    out = tmp_path / "out"
    assert batch(manifest, out, "--seeds", "2") == 0
    assert len(one_model) == 1
    before = files(out)
    assert before == files(plain)
    assert batch(manifest, out, "--seeds", "2") == 0
    assert len(one_model) == 1
    lost = rows_of(out)[4]["picture"]
    (out / lost).unlink()
    (out / "edits" / "half.part").write_bytes(b"x")  # what a killed run leaves
    assert batch(manifest, out, "--seeds", "2") == 0
    assert len(one_model) == 2
    assert files(out) == before


def test_a_broken_picture_is_a_row_of_errors_and_the_others_are_made(manifest, one_model, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_text("hello")
    (tmp_path / "set.yaml").write_text(
        f"- {{init_img: {bad}, target_prompts: [x, y]}}\n- {{init_img: none.png, target_prompts: x}}\n"
        + manifest.read_text()
    )
    out = tmp_path / "out"
    assert batch(tmp_path / "set.yaml", out, "--seeds", "2") == 0
    assert len(rows_of(out)) == 12
    with (out / "errors.csv").open(newline="") as file:
        head, *errors = csv.reader(file)
    assert head == ["line", "error"]
    assert [line for line, _ in errors] == ["1", "2"]
    assert "cannot be read as a picture" in errors[0][1]
    assert "12 of 16 edits" in (out / "index.html").read_text()
    told = capsys.readouterr().err
    assert told.count("cannot be read as a picture") == 1
    assert "100%|" in told
    (tmp_path / "set.yaml").write_text(manifest.read_text())
    assert batch(tmp_path / "set.yaml", out, "--seeds", "2") == 0
    assert not (out / "errors.csv").exists()


def test_the_bar_says_pictures_a_minute_and_the_time_left(capsys):
    with drive.Progress(total=30, initial=10, desc="editing") as bar:
        bar.start_t -= 60
        bar.update(5)
        bar.refresh()
        assert bar.format_dict["a_minute"] == "5"
        assert ("15/30", "left") == (str(bar).split("| ")[1].split(",")[0], str(bar).split()[-1])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--workers", "0"], "--workers must be 1 or more; got 0"),
        (["--seeds", "0"], "--seeds must be 1 or more; got 0"),
        (["--eta", "3"], "--eta must be from 0 to 1; got 3"),
        (["--skip", "4"], "--skip must lie in"),
        (["--device", "cuda:77"], "--device must be one that torch can use"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_edit(manifest, one_model, tmp_path, capsys, more, words):
    assert batch(manifest, tmp_path / "out", *more) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.csv").exists()


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_lives(manifest, one_model, tmp_path, capsys):
    out = tmp_path / "out"
    with Folder(out, {}):
        (out / "settings.json").unlink()  # an empty one is not that of a run
        assert batch(manifest, out) == 1
        assert "another run is writing into this folder" in capsys.readouterr().err
    assert batch(manifest, out) == 0


def test_a_killed_run_does_not_keep_the_lock(tmp_path):
    code = f"""
import time
from pathlib import Path
from ddpm_core.lab.batch.folder import lock
held = lock(Path({str(tmp_path)!r}))
print("held", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another run"):
            lock(tmp_path)
        other.send_signal(signal.SIGKILL)
    lock(tmp_path).close()


def test_a_full_disk_is_said_and_the_run_goes_on_with_space(manifest, plain, one_model, tmp_path, monkeypatch, capsys):
    out, real, left = tmp_path / "out", Table.append, [3, 0]

    def append(self, rows):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        left[0] -= 1
        real(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Table, "append", append)
        assert batch(manifest, out, "--seeds", "2") == 1
    told = capsys.readouterr().err
    assert "the disk is full" in told
    assert "start the same command again" in told
    assert len(rows_of(out)) == 3
    assert batch(manifest, out, "--seeds", "2") == 0
    assert files(out) == files(plain)


def test_a_row_that_does_not_fit_onto_the_disk_leaves_nothing(tmp_path):
    table = Table(tmp_path / "t.csv", ("a", "b"))
    table.append([{"a": "1", "b": "x"}])
    before = table.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            table.append([{"a": "2", "b": "y" * 100}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert table.path.read_bytes() == before
    table.append([{"a": "3", "b": "z"}])
    assert [row["a"] for row in Table(table.path, ("a", "b"))] == ["1", "3"]


def test_a_table_is_cut_to_whole_lines_read_and_arranged(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"text,key\r\n" + b"".join(b'"a, ""b""",k%d\r\n' % i for i in (3, 1, 2)) + b"x" * 200_000)
    table = Table(path, ("text", "key"))
    assert [row for row in table][0] == {"text": 'a, "b"', "key": "k3"}
    table.append([{"text": "newer", "key": "k3", "more": "left out"}])
    assert list(table.last_cells()) == ["k3", "k1", "k2", "k3"]
    table.arrange(["k1", "k7", "k3"])
    assert [(row["text"], row["key"]) for row in table] == [('a, "b"', "k1"), ("newer", "k3"), ('a, "b"', "k2")]
    path.write_bytes(b"text,ke")  # stopped in the first line
    table = Table(path, ("text", "key"))
    table.append([{"text": "a", "key": "b"}])
    assert list(Table(path, ("text", "key"))) == [{"text": "a", "key": "b"}]


def told(pairs):
    """{name: how often it was begun, or what failed}"""
    return {job.name: row.what if isinstance(row, Failure) else row["begun"] for job, row in pairs}


def chores(folder):
    return [
        Chore("good", folder),
        Chore("once", folder, deaths=1),
        Chore("twice", folder, deaths=2),
        Chore("wrong", folder, error=ValueError("no picture")),
        Chore("last", folder),
    ]


def expect(found):
    assert {name: value for name, value in found.items() if name != "twice"} == {
        "good": 1,
        "once": 2,
        "wrong": "no picture",
        "last": 1,
    }
    assert "was killed" in found["twice"]


@pytest.mark.slow
def test_a_job_whose_process_is_killed_is_done_again_once(tmp_path):
    with Processes(Bare, argparse.Namespace(device="cpu"), 2) as runner:
        expect(told(runner.run(chores(tmp_path))))
        assert (tmp_path / "twice").read_text() == "xx"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space", "p"), KeyError("x")])
def test_rows_made_before_what_ends_the_run_are_told(error):
    class Job:
        size = 2

        def do(self, worker):
            yield {"picture": "a"}
            raise error

    job, got = Job(), []
    rows = jobs.answer(job, None)
    with pytest.raises(OSError if isinstance(error, OSError) else RuntimeError, match="No space|KeyError: 'x'"):
        got.extend(jobs.told_of(job, rows))
    assert [row for row in rows if not isinstance(row, Exception)] == [{"picture": "a"}]
    assert got == [(job, {"picture": "a"})]


@pytest.mark.slow
def test_many_processes_that_die_once_each_do_not_end_the_run(tmp_path):
    with Processes(Bare, argparse.Namespace(device="cpu"), 2) as runner:
        found = told(runner.run(Chore(f"d{i}", tmp_path, deaths=1) for i in range(8)))
    assert set(found.values()) == {2}


@pytest.mark.slow
def test_processes_share_the_threads_and_end_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    with Processes(Bare, argparse.Namespace(device="cpu"), 2) as runner:
        ((_, row),) = runner.run([Chore("a", tmp_path)])
        assert row["threads"] == 3
        (process,) = [hand._process for hand in runner._hands if hand._process]
        assert process.is_alive()
    assert process.exitcode == 0


@pytest.mark.slow
def test_mistakes_and_machines_that_kill_every_worker_end_the_run(tmp_path):
    with Processes(Bare, argparse.Namespace(device="cpu"), 1) as runner:
        with pytest.raises(RuntimeError, match="a worker failed:(?s:.*)KeyError: 'x'"):
            list(runner.run([Chore("a", tmp_path, error=KeyError("x"))]))
        with pytest.raises(OSError, match="No space") as raised:
            list(runner.run([Chore("b", tmp_path, error=OSError(errno.ENOSPC, "No space", "p"))]))
        assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, "p")
        with pytest.raises(ValueError, match="3 jobs, one after the other, lost their workers"):
            list(runner.run(Chore(f"c{i}", tmp_path, deaths=9) for i in range(9)))
    assert [(tmp_path / f"c{i}").exists() for i in range(4)] == [True, True, True, False]


def test_one_process_does_the_same(tmp_path):
    with Here(Bare(None)) as runner:
        found = told(runner.run([job for job in chores(tmp_path) if not job.deaths]))
    assert found == {"good": 1, "wrong": "no picture", "last": 1}


def need_ray():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("BATCH ON RAY NOT TESTED: there is no ray; python -m pip install -r requirements-ray.txt")


@pytest.mark.slow
@pytest.mark.parametrize("way", proof.WAYS)
def test_a_run_whose_worker_and_driver_are_killed_ends_with_the_bytes_of_a_plain_one(way, tmp_path, capfd):
    if "Ray" in way:
        need_ray()
    assert proof.main(["--pictures", "6", "--out", str(tmp_path / "out"), "--ways", way]) == 0
    head, _, plain, killed = (line.split(" | ") for line in capfd.readouterr().out.splitlines() if line[:1] == "|")
    assert plain[2] == killed[2] == str(6 + 6 + 4)  # edits, sources, and what the run says of itself
    assert killed[3] == "none"
    assert re.fullmatch(r"a worker at [2-4], the driver at [3-5]", killed[1])


def test_the_cost_beside_the_model_is_measured():
    count, rate, *memory = scale.driver_alone(200, Here(scale.Nobody(None)))
    assert (count, len(memory)) == ("200", 2)
    assert int(rate) > 100
    assert [row[1] for row in scale.long_table(50)] == ["50", "50", "50"]


@pytest.fixture(scope="module")
def ray():
    need_ray()
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    paths = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=paths)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_two_actors_of_ray_give_the_same_bytes(ray, manifest, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert batch(manifest, "out", "--seeds", "2", "--ray", "local") == 0
    assert files(tmp_path / "out") == files(plain)


@pytest.mark.slow
def test_a_job_whose_actor_dies_is_done_again_once(ray, tmp_path):
    from ddpm_core.lab.batch.on_ray import OnRay

    with OnRay(Bare, argparse.Namespace(device="cpu"), "local", 2) as runner:
        expect(told(runner.run(chores(tmp_path))))
        with pytest.raises(RuntimeError, match="a worker failed:(?s:.*)KeyError: 'x'"):
            list(runner.run([Chore("a", tmp_path, error=KeyError("x"))]))
    with pytest.raises(ValueError, match="needs a GPU in the Ray cluster"):
        OnRay(Bare, argparse.Namespace(device="cuda"), "local", None)


def test_without_ray_it_is_said_how_to_get_it(manifest, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert batch(manifest, tmp_path / "out", "--ray", "auto") == 1
    assert "python -m pip install -r requirements-ray.txt" in capsys.readouterr().err
