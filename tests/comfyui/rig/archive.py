"""What the registry's archive holds: the files that git knows, less those that .comfyignore names,
by git's own rules."""

import shutil
import subprocess

from tests.comfyui.rig.server import PACK


def _listed(*options):
    command = ["git", "ls-files", "-z", *options]
    names = subprocess.run(command, cwd=PACK, capture_output=True, text=True, check=True).stdout
    return {name for name in names.split("\0") if name and (PACK / name).is_file()}


def files():
    """The paths of the archive's files, from the repository's root."""
    return sorted(_listed() - _listed("--cached", "--ignored", "--exclude-from=.comfyignore"))


def unpack(folder):
    """The archive's files in a folder, as ComfyUI's manager lays them into custom_nodes."""
    for name in files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACK / name, folder / name)
    return folder
