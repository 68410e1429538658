"""SaveNoiseMaps and LoadNoiseMaps: noise maps as files, in ComfyUI's output and input folders."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy.cli_args import args
from comfy_api.latest import io
from safetensors import SafetensorError, safe_open

from ..ddpm_core import NoiseMaps
from ..ddpm_core.checks import NotFinite
from ..ddpm_core.maps_file import FORMAT
from .host.wires import NOISE_MAPS_TOOLTIP, NodeError, NoiseMapsType, check_maps, known, naming

SUFFIX = ".safetensors"
FOLDER = "noise_maps"  # the subfolder that is searched: whole output folders can be very large


class SaveNoiseMaps(io.ComfyNode):
    """Noise maps (arXiv 2304.06140, An Edit Friendly DDPM Noise Space) as a safetensors file."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveNoiseMaps",
            display_name="Save Noise Maps",
            category="edit-friendly noise maps/files",
            description="Save noise maps to the output folder, with the workflow, to edit the picture another day "
            "without inverting it again.",
            is_output_node=True,
            **known(io.Schema, search_aliases=["save inversion", "save latent", "export noise"]),
            inputs=[
                NoiseMapsType.Input("noise_maps", tooltip=NOISE_MAPS_TOOLTIP),
                io.String.Input(
                    "filename_prefix",
                    default=f"{FOLDER}/maps",
                    tooltip="Folder and name, inside the output folder. Load Noise Maps lists what lies in noise_maps.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["full", "half"],
                    default="full",
                    tooltip="full gives the picture back exactly; half takes 3/8 of the space, and the picture comes "
                    "back only nearly (see the help).",
                    **known(io.Combo.Input, advanced=True),
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, noise_maps, filename_prefix, precision, **kwargs) -> io.NodeOutput:
        check_maps("SaveNoiseMaps", noise_maps)
        path, subfolder = _new_file(filename_prefix)
        try:
            noise_maps.save(path, _workflow(cls.hidden), half=precision == "half")
        except NotFinite as error:
            raise NodeError("SaveNoiseMaps", "precision", str(error), "Choose full.") from error
        except (OSError, SafetensorError, ValueError) as error:
            raise _unwritten(filename_prefix, error) from error
        size = f"{path.name}: {path.stat().st_size / 1e6:.1f} MB"
        entry = {"filename": path.name, "subfolder": subfolder, "type": "output"}
        return io.NodeOutput(ui={"noise_maps": [entry], "text": (size,)})


def _new_file(prefix: str) -> tuple[Path, str]:
    """The file that comes next for a prefix, and its subfolder of the output folder."""
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_output_directory()
        )
    except OSError as error:
        raise _unwritten(prefix, error) from error
    except Exception as error:  # for a prefix that leads out of the output folder, or is no name, ComfyUI raises these
        problem = f"it must name a file inside the output folder; got {prefix!r}."
        raise NodeError("SaveNoiseMaps", "filename_prefix", problem, "Take out the ..") from error
    return Path(folder) / f"{name}_{counter:05}_{SUFFIX}", subfolder


def _unwritten(prefix: str, error: Exception) -> NodeError:
    remedy = "Is the disk full, or the folder not yours to write to?"
    return NodeError("SaveNoiseMaps", "filename_prefix", f"writing {prefix!r} failed: {error}.", remedy)


def _workflow(hidden) -> dict[str, str]:
    """The prompt and the workflow as SaveLatent keeps them, unless ComfyUI was told not to."""
    if args.disable_metadata:
        return {}
    parts = {"prompt": hidden.prompt, **(hidden.extra_pnginfo or {})}
    return {key: json.dumps(value) for key, value in parts.items() if value is not None}


class LoadNoiseMaps(io.ComfyNode):
    """Noise maps (arXiv 2304.06140, An Edit Friendly DDPM Noise Space) from a saved file."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadNoiseMaps",
            display_name="Load Noise Maps",
            category="edit-friendly noise maps/files",
            description="Load noise maps that were saved before. Edit them with the model of their inversion; its "
            "prompts and cfg give the picture back.",
            **known(io.Schema, search_aliases=["load inversion", "load latent", "import noise"]),
            inputs=[
                io.Combo.Input(
                    "file",
                    options=_listed(),
                    tooltip="A file of Save Noise Maps, in the output or the input folder or in the subfolder "
                    "noise_maps of either.",
                )
            ],
            outputs=[NoiseMapsType.Output(display_name="noise_maps", tooltip=NOISE_MAPS_TOOLTIP)],
        )

    @classmethod
    def validate_inputs(cls, file, **kwargs):
        try:
            if file is not None:  # None: it comes over a wire, and execute will look
                _path(file)
        except NodeError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file, **kwargs):
        if file is None:
            return ""
        status = _path(file).stat()
        return f"{file} {status.st_mtime_ns} {status.st_size}"

    @classmethod
    def execute(cls, file, **kwargs) -> io.NodeOutput:
        free = comfy.model_management.get_free_memory(torch.device("cpu"))
        with naming("LoadNoiseMaps", "file", "Choose another file, or save the maps again."):
            return io.NodeOutput(NoiseMaps.load(_path(file), limit=free))


def _path(name: str) -> Path:
    """Where the file that the widget names lies. Raises NodeError for one that is absent or outside
    of ComfyUI's folders.

    Names are judged before the disk is looked at, and links inside the folders are followed, as
    ComfyUI does.
    """
    plain, folder = folder_paths.annotated_filepath(name)
    folder = os.path.abspath(folder or folder_paths.get_input_directory())
    path = os.path.abspath(os.path.join(folder, plain))
    try:
        readable = os.path.commonpath((folder, path)) == folder and os.path.isfile(path)
    except ValueError:  # another drive, or no name for a file at all
        readable = False
    if not readable:
        problem = f"there is no {name!r} in ComfyUI's input and output folders."
        raise NodeError("LoadNoiseMaps", "file", problem, "Choose a file of the list, or upload one.")
    return Path(path)


def _listed() -> list[str]:
    """The noise maps in the input and the output folder, as the widget names them."""
    names = []
    for folder, mark in ((folder_paths.get_input_directory(), ""), (folder_paths.get_output_directory(), " [output]")):
        paths = [*Path(folder).glob(f"*{SUFFIX}"), *Path(folder, FOLDER).rglob(f"*{SUFFIX}")]
        names += [path.relative_to(folder).as_posix() + mark for path in sorted(paths) if _holds_maps(path)]
    return names


def _holds_maps(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:  # a link to nowhere, or deleted just now
        return False
    return _says_maps(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=10_000)
def _says_maps(path: Path, changed: int, size: int) -> bool:
    """Whether a file's header says so; asked again when the file has changed."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


NODES = [SaveNoiseMaps, LoadNoiseMaps]
