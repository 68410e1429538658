"""ComfyUI for the tests where none is found: the oldest that the pack runs on, with an environment
of its own, in a folder of the checkout that git ignores (`make comfyui`).

    python -m tests.comfyui.rig.install

Where its repository cannot be reached, the tests go on without it, and say so at their end.
"""

import os
import re
import shutil
import subprocess
import sys
import venv

from tests.comfyui.rig.server import OWN, PACK, find_comfyui

ADDRESS = "https://github.com/Comfy-Org/ComfyUI"
ANSWER_SECONDS, CLONE_SECONDS = 20, 600


def tag():
    return re.search(r'^requires-comfyui = ">=(.+)"', (PACK / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]


def clone(address, name, folder):
    """A tag of a repository, without its history. Raises CalledProcessError, TimeoutExpired."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    settings = {"check": True, "capture_output": True, "text": True, "env": environment}
    subprocess.run(["git", "ls-remote", "--exit-code", address, name], timeout=ANSWER_SECONDS, **settings)
    command = ["git", "clone", "--depth", "1", "--branch", name, address, str(folder)]
    subprocess.run(command, timeout=CLONE_SECONDS, **settings)


def make_environment(folder, *requirements):
    """ComfyUI's `.venv`. Raises CalledProcessError."""
    venv.create(folder / ".venv", clear=True, with_pip=True)
    python = folder / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    subprocess.run(command, check=True)
    (folder / ".venv" / "ready").touch()


def set_up(folder, address, name, *requirements):
    """Do what has not been done yet; None, or what went wrong."""
    done = folder
    try:
        if not (folder / "main.py").is_file():
            clone(address, name, folder)
        done = folder / ".venv"
        if not (done / "ready").is_file():
            make_environment(folder, *requirements)
    except (subprocess.SubprocessError, OSError) as error:
        shutil.rmtree(done, ignore_errors=True)
        return (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
    return None


def main():
    found, where = find_comfyui()
    if found not in (None, OWN) or "COMFYUI_PATH" in os.environ:
        print(f"ComfyUI for the tests: {where}")
        return
    # The versions of the core's tests, so that nothing is downloaded twice.
    requirements = [
        "-r",
        OWN / "requirements.txt",
        "-r",
        PACK / "requirements.txt",
        "-c",
        PACK / "requirements-dev.txt",
    ]
    problem = set_up(OWN, ADDRESS, f"v{tag()}", *map(str, requirements))
    print(f"ComfyUI was not set up: {problem}" if problem else f"ComfyUI for the tests: {OWN}", file=sys.stderr)


if __name__ == "__main__":
    main()
