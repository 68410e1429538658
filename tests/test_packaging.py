"""What the registry and a user's ComfyUI are given: pyproject.toml, requirements, the archive, icon
and banner, and what stops a release."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.comfyui.rig import archive

ROOT = Path(__file__).parents[1]
SHIPPED = (
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "__init__.py",
    "ddpm_core",
    "example_workflows",
    "locales",
    "nodes",
    "pyproject.toml",
    "requirements.txt",
    "subgraphs",
    "web",
)
# For any of these the registry keeps a version back; its rules are not published, authors told each other.
SCANNED = re.compile(
    r"os\.environ|\bsubprocess\b|\bctypes\b|\bimport socket\b|\bsocket\.socket|\b(eval|exec)\("
    r"|\b(urllib|requests|aiohttp)\b|\.(connect|bind|send)\("
)
# That the publisher fills in.
FIELDS = ("Repository", "Documentation", '"Bug Tracker"', "PublisherId", "Icon", "Banner")


def read(name):
    return (ROOT / name).read_text("utf-8")


@pytest.fixture(scope="module")
def pyproject():
    return pytest.importorskip("tomllib").loads(read("pyproject.toml"))  # Python 3.10 has none


def requirements():
    return [line for line in read("requirements.txt").splitlines() if line and not line.startswith("#")]


def left_out():
    return [line for line in read(".comfyignore").splitlines() if line and not line.startswith("#")]


def test_the_name_is_one_that_the_registry_takes(pyproject):
    name = pyproject["project"]["name"]
    assert re.fullmatch(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", name)
    assert len(name) < 100
    assert not any("comfyui" in text.lower() for text in (name, pyproject["tool"]["comfy"]["DisplayName"]))


def test_the_web_folder_is_named_in_python_only(pyproject):
    assert "web" not in pyproject["tool"]["comfy"], "ComfyUI would load every script twice"


def test_the_version_is_the_newest_of_the_changelog(pyproject):
    newest = re.search(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d|unreleased)$", read("CHANGELOG.md"), re.MULTILINE)
    assert newest[1] == pyproject["project"]["version"]


def test_the_licence_lies_where_pyproject_says(pyproject):
    assert "MIT License" in read(pyproject["project"]["license"]["file"])


def test_requirements_are_those_of_pyproject(pyproject):
    assert sorted(requirements()) == sorted(pyproject["project"]["dependencies"])


def test_requirements_are_floors_only():
    assert requirements()
    for requirement in requirements():
        assert re.fullmatch(r"[\w.-]+(>=[\d.]+)?", requirement)


def test_what_the_registry_scans_for_is_linted(pyproject):
    assert {"S102", "S307", "E702"} <= set(pyproject["tool"]["ruff"]["lint"]["select"])
    assert not {"S102", "S307", "E702"} & set(pyproject["tool"]["ruff"]["lint"]["ignore"])


def test_the_oldest_python_and_comfyui_are_tested_on_github(pyproject):
    core, comfyui = (
        job["strategy"]["matrix"] for job in yaml.safe_load(read(".github/workflows/test.yml"))["jobs"].values()
    )
    assert f">={core['python'][0]}" == pyproject["project"]["requires-python"]
    assert comfyui["comfyui"][0] == pyproject["tool"]["comfy"]["requires-comfyui"].replace(">=", "v")


@pytest.mark.parametrize("workflow", ["publish", "test"])
def test_actions_are_named_by_the_hash_of_a_commit(workflow):
    used = re.findall(r"uses: (.+)", read(f".github/workflows/{workflow}.yml"))
    assert used
    pinned = r"actions/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+|\./\.github/workflows/test\.yml"
    assert [name for name in used if not re.fullmatch(pinned, name)] == []


def test_the_registrys_token_is_in_a_protected_environment_of_main():
    jobs = yaml.safe_load(read(".github/workflows/publish.yml"))["jobs"]
    assert [name for name, job in jobs.items() if "secrets." in str(job)] == ["publish"]
    assert jobs["publish"]["environment"] == "registry"
    assert "github.ref == 'refs/heads/main'" in jobs["version"]["if"]
    needs = {name: job.get("needs") for name, job in jobs.items()}
    assert needs == {"version": None, "check": "version", "tests": "check", "publish": "tests"}


def test_sources_are_ascii():
    sources = [
        ROOT / "__init__.py",
        *(path for folder in ("ddpm_core", "nodes", "tests", ".github") for path in (ROOT / folder).rglob("*.py")),
    ]
    assert len(sources) > 50
    assert [str(path) for path in sources if not path.read_bytes().isascii()] == []


def test_the_archive_leaves_out_nothing_that_a_node_reads():
    assert {path for path in left_out() if not re.fullmatch(r"/[\w./-]+", path)} == set(), (
        "without wildcards, and from the root, one sees what goes"
    )
    assert {path.strip("/") for path in left_out()} & set(SHIPPED) == set()
    assert [path for path in left_out() if not (ROOT / path.strip("/")).exists()] == []
    assert {name.partition("/")[0] for name in archive.files()} == set(SHIPPED)


def test_the_archive_has_no_word_that_the_registry_scans_for():
    texts = {}
    for name in archive.files():
        content = (ROOT / name).read_bytes()
        if b"\0" not in content:
            texts[name] = content.decode("utf-8")
    assert {"README.md", "__init__.py", "nodes/edit.py", "web/noise_maps.js", "locales/zh/nodeDefs.json"} <= set(texts)
    found = {f"{name}: {match[0]}" for name, text in texts.items() for match in SCANNED.finditer(text)}
    assert found == set()


def test_the_archive_says_that_it_has_no_commands(tmp_path):
    command = [sys.executable, "-m", "ddpm_core", "demo"]
    done = subprocess.run(command, cwd=archive.unpack(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*nodes.*clone of the repository.*\n", done.stderr)


@pytest.mark.parametrize(("name", "ratio", "most_bytes"), [("icon", (1, 1), 60_000), ("banner", (21, 9), 250_000)])
def test_icon_and_banner_have_the_registrys_shape(pyproject, name, ratio, most_bytes):
    path = ROOT / "docs" / f"{name}.png"
    with Image.open(path) as picture:
        width, height = picture.size
        assert picture.format == "PNG"
    assert width * ratio[1] == height * ratio[0]
    assert name != "icon" or width == 400  # the registry takes 800 x 400 at most
    assert path.stat().st_size <= most_bytes
    address = pyproject["tool"]["comfy"][name.title()]
    assert address == "" or re.fullmatch(rf"https://\S+/docs/{name}\.png", address)


@pytest.fixture
def release(pyproject, tmp_path):
    """Run the check of a release on a copy in which everything is filled in but ``empty``, with the
    given heading in its changelog."""

    def run(empty=(), heading="## {} - 2031-05-06"):
        text = read("pyproject.toml")
        for key in FIELDS:
            value = "" if key in empty else "https://host.example/something"
            text = re.sub(rf"^{key} = .*$", f'{key} = "{value}"', text, flags=re.MULTILINE)
        (tmp_path / "pyproject.toml").write_text(text, "utf-8")
        older = "## 0.0.1 - 2030-01-01\n\n- an older thing\n"
        (tmp_path / "CHANGELOG.md").write_text(
            f"# Changelog\n\n{heading.format(pyproject['project']['version'])}\n\n- a new thing\n\n{older}", "utf-8"
        )
        shutil.copy(ROOT / ".github" / "release.py", tmp_path)
        return subprocess.run([sys.executable, "release.py"], cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_a_release_that_is_filled_in_gives_its_changes(release):
    done = release()
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "- a new thing", "")


@pytest.mark.parametrize("key", FIELDS)
def test_a_release_with_an_empty_field_is_refused_by_name(release, key):
    done = release(empty=[key])
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if key.strip('"') in line] == done.stderr.splitlines()
    assert done.stderr.count("is empty") == 1


@pytest.mark.parametrize("heading", ["## {} - unreleased", "## 9.9.9 - 2031-05-06"])
def test_a_release_that_the_changelog_does_not_date_is_refused(release, heading):
    done = release(heading=heading)
    assert done.returncode == 1
    assert "CHANGELOG.md" in done.stderr
