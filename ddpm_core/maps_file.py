"""The file format of noise maps: safetensors, with a format, a version and the settings as strings
in its header."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .checks import BadArgument

FORMAT = "edit-friendly-noise-maps"
VERSION = "1"
MOST_STEPS = 10_000  # of a whole schedule: what a file says of itself must not decide how much is drawn
_NAMES = {torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}


def write(path: str | os.PathLike, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a file, whole or not at all."""
    from safetensors.torch import save_file

    unfinished = f"{os.fspath(path)}.{uuid.uuid4().hex}.part"
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(held, unfinished, metadata={**header, "format": FORMAT, "version": VERSION})
        os.replace(unfinished, path)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def read(
    path: str | os.PathLike,
    allowed: Mapping[str, Collection[torch.dtype]],
    optional: Collection[str] = (),
    *,
    limit: float = math.inf,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, in memory of their own (the file may change), and its header.

    allowed   the tensors that a file holds, with the dtypes that each may have; float16, where it
              is one of them, is read as the next
    optional  those that may be missing
    limit     bytes that the maps may take in memory, where residuals are float64 whatever the file
              has

    Names, types and sizes are checked before any value is read. Raises FileNotFoundError, or
    BadArgument.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            _check_header(path, meta, file, allowed, optional, limit)
            slices = {name: file.get_slice(name) for name in file.keys()}
            shapes = {name: (part.get_shape(), part.get_dtype()) for name, part in slices.items()}
        return _values(path, shapes, allowed), meta
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        rule = f"{path} must be a whole safetensors file with noise maps"
        raise BadArgument("path", f"{rule}; reading it failed: {error}.") from error


def _values(path, shapes: Mapping[str, tuple], allowed) -> dict[str, Tensor]:
    """The tensors of a file whose header is checked, read into their place: a map of the file would
    take the memory a second time."""
    tensors = {}
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, (shape, said) in shapes.items():
            dtype = next(known for known in allowed[name] if _NAMES[known] == said)
            kept = allowed[name][1] if dtype == torch.float16 else dtype
            tensor = tensors[name] = torch.empty(shape, dtype=kept)
            file.seek(8 + length + header[name]["data_offsets"][0])
            for part in tensor if len(shape) > 1 else [tensor]:
                raw = part if kept == dtype else torch.empty(part.shape, dtype=dtype)
                if raw.numel() and file.readinto(memoryview(raw.numpy()).cast("B")) != raw.nbytes:
                    raise OSError("it was cut off meanwhile")
                if raw is not part:
                    part.copy_(raw)
    return tensors


def _check_header(path, meta: Mapping[str, str], file, allowed, optional, limit: float) -> None:
    """``file`` is an open safetensors file; nothing but its header is read."""
    if meta.get("format") != FORMAT:
        said = _short(meta.get("format"))
        raise BadArgument("path", f"{path} must be a noise maps file (format {FORMAT!r}); its header says {said}.")
    if meta.get("version") != VERSION:
        said = _short(meta.get("version"))
        remedy = "Update the node pack, or make the maps again."
        raise BadArgument("path", f"{path} must have format version {VERSION!r}; it has {said}. {remedy}")
    names, needed = set(file.keys()), set(allowed) - set(optional)
    if names - set(optional) != needed:
        rule = f"{path} must hold the tensors {sorted(needed)}, and may hold {' and '.join(sorted(optional))}"
        raise BadArgument("path", f"{rule}; it holds {_short(sorted(names))}.")
    size = 0
    for name in sorted(names):
        tensor = file.get_slice(name)
        dtype, shape = tensor.get_dtype(), tensor.get_shape()
        dtypes = [_NAMES[known] for known in allowed[name]]
        if dtype not in dtypes:
            raise BadArgument("path", f"{path} must hold {name} as {' or '.join(dtypes)}; it holds {dtype}.")
        if name == "sigmas" and (len(shape) != 1 or shape[0] > MOST_STEPS + 1):
            rule = f"sigmas of shape (T+1,) for at most {MOST_STEPS} steps"
            raise BadArgument("path", f"{path} must hold {rule}; got {tuple(shape)}.")
        size += math.prod(shape) * (8 if dtype == "F64" or name == "residuals" else 4)
    if size > limit:
        needs = f"maps that take {size / 1e6:.0f} MB of memory"
        raise BadArgument("path", f"{path} holds {needs}; {limit / 1e6:.0f} MB are free.")


def _short(value) -> str:
    """What a file says, for an error: a hostile one may say megabytes."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"
