"""`make comfyui`: a tag of a repository with an environment of its own; without a network nothing
is left behind."""

import subprocess

import pytest

from tests.comfyui.rig import install

GIT = ["git", "-c", "user.name=A", "-c", "user.email=a@host.example", "-c", "commit.gpgsign=false"]


@pytest.fixture
def repository(tmp_path):
    """A repository whose tag v1 has a main.py, and the commit after it another."""
    folder = tmp_path / "repository"
    subprocess.run([*GIT, "init", "--quiet", str(folder)], check=True)
    for name in ("v1", "v2"):
        (folder / "main.py").write_text(name)
        for command in (["add", "main.py"], ["commit", "--quiet", "-m", name], ["tag", name]):
            subprocess.run([*GIT, *command], cwd=folder, check=True)
    return folder.as_uri()


def test_a_tag_is_cloned_and_gets_an_environment(repository, tmp_path):
    folder = tmp_path / "own"
    assert install.set_up(folder, repository, "v1", "pip") is None
    assert (folder / "main.py").read_text() == "v1"
    assert (folder / ".venv" / "ready").is_file()
    assert not (folder / ".git" / "refs" / "tags" / "v2").exists()
    (folder / ".venv" / "seen").touch()
    assert install.set_up(folder, "file:///absent", "v1", "pip") is None
    assert (folder / ".venv" / "seen").is_file(), "what is there is made once"


def test_what_cannot_be_had_leaves_nothing_behind(repository, tmp_path):
    folder = tmp_path / "own"
    assert "not" in install.set_up(folder, (tmp_path / "absent").as_uri(), "v1", "pip")
    assert install.set_up(folder, repository, "v3", "pip")
    assert not folder.exists()
    assert "absent.txt" in install.set_up(folder, repository, "v1", "-r", "absent.txt")
    assert (folder / "main.py").is_file()
    assert not (folder / ".venv").exists()


def test_a_repository_that_does_not_answer_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr(install, "ANSWER_SECONDS", 0)
    assert "timed out" in install.set_up(tmp_path / "own", tmp_path.as_uri(), "v1", "pip")


def test_the_tested_version_is_the_oldest_that_the_pack_asks_for():
    assert install.tag().split(".")[:2] == ["0", "3"]
