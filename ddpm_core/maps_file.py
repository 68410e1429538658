"""The file format of noise maps: safetensors, with a format, a version and the settings as strings
in its header."""

from __future__ import annotations

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

    allowed   the tensors that a file holds, with the dtypes that each may have; the last dtype is
              the widest
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
            return {name: file.get_tensor(name).clone() for name in file.keys()}, meta
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        rule = f"{path} must be a whole safetensors file with noise maps"
        raise BadArgument("path", f"{rule}; reading it failed: {error}.") from error


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
