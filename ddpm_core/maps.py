"""The container of an inverted picture, and its file format."""

from __future__ import annotations

import dataclasses
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .steps import Process, Solver, Step, schedule

FORMAT = "edit-friendly-noise-maps"
VERSION = "1"
MOST_STEPS = 10_000  # of a whole schedule: what a file says of itself must not decide how much is drawn
_TENSORS = ("sigmas", "latents", "residuals", "predictions")
_OPTIONAL = ("mask", "pull")
_HALVED = ("latents", "residuals", "predictions")
_STORED = {"sigmas": ("F64",), "residuals": ("F16", "F64"), "latents": ("F16", "F32", "F64"), "predictions": ("F16", "F32", "F64")}


@dataclass(frozen=True, eq=False)
class NoiseMaps:
    """The edit-friendly code of a batch of latents (paper section 3), in the order of execution.

    Fields
        sigmas       (S+1,) noise levels, strictly decreasing, float64; the last may be 0
        latents      (S+1, B, C, *S) the path x; the last one is the clean latent x_0
        residuals    (S, B, C, *S) x_next - mean, that is up z, float64: a rounded residual leaves the path by the last digit, which a half-precision
                     model rounds to another input, and the picture no longer comes back
        predictions  (S, B, C, *S) x0_hat on the path
        eta, solver, process   what a replay needs to be exact
        seed         of the path's noise; item i of the batch has seed + i
        skipped      steps of the whole schedule that were left out before the first one held here
        mask         None or (1 or B, 1, *S) in [0, 1]: 1 where an edit may change the latent
        pull         None or (S, 1 or B, 1, *S) at least 0: a step subtracts pull x0_hat with the prediction of the run itself; the residuals hold pull times
                     where a colour push leads to

    Latents, predictions, mask and pull are float32 (or float64), and all share one device. Anything that does not fit is a ValueError, raised once, here.
    """

    sigmas: Tensor
    latents: Tensor
    residuals: Tensor
    predictions: Tensor
    eta: float = 1.0
    solver: Solver = Solver.FIRST_ORDER
    process: Process = Process.VE
    seed: int = 0
    skipped: int = 0
    mask: Tensor | None = None
    pull: Tensor | None = None

    def __post_init__(self):
        object.__setattr__(self, "sigmas", torch.as_tensor(self.sigmas, dtype=torch.float64, device="cpu"))
        if self.sigmas.dim() != 1:
            raise ValueError(f"sigmas must have shape (S+1,); got {tuple(self.sigmas.shape)}.")
        schedule(self.sigmas, eta=self.eta, solver=self.solver, process=self.process)
        _check_values(self)
        if self.skipped < 0:
            raise ValueError(f"skipped must be 0 or more; got {self.skipped}.")
        if self.total_steps > MOST_STEPS:
            raise ValueError(f"maps may have at most {MOST_STEPS} steps, the skipped ones included; got {self.total_steps}.")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must lie in [0, 2^64); got {self.seed}.")

    @property
    def steps(self) -> list[Step]:
        """The S transitions that the maps belong to."""
        return schedule(self.sigmas, eta=self.eta, solver=self.solver, process=self.process)

    @property
    def total_steps(self) -> int:
        """Steps of the whole schedule, the skipped ones included."""
        return self.skipped + len(self.residuals)

    @property
    def noise(self) -> Tensor:
        """What each step adds to its mean on the path, up z (S, B, C, *S): the residuals, with a push's pull at the path's own predictions."""
        return self.residuals if self.pull is None else self.residuals - self.pull * self.predictions

    @property
    def z(self) -> Tensor:
        """The paper's noise maps z_t (S, B, C, *S) on the path, eq. 5: noise / up. Raises ValueError where a step adds no noise."""
        ups = torch.tensor([step.up for step in self.steps], dtype=self.residuals.dtype, device=self.residuals.device)
        if (ups == 0).any():
            where = ", ".join(str(i) for i in (ups == 0).nonzero().flatten().tolist())
            raise ValueError(f"z = residual / up needs noise in every step (eta {self.eta:g}); up is 0 at step {where}: use residuals there.")
        return self.noise / ups.view(-1, *[1] * (self.residuals.dim() - 1))

    def skip(self, n: int) -> NoiseMaps:
        """The maps from step ``n`` of the whole schedule on: fewer steps, more of the picture kept."""
        if not self.skipped <= n < self.total_steps:
            raise ValueError(
                f"skip must lie in [{self.skipped}, {self.total_steps - 1}]: the maps have {self.total_steps} steps, made with skip {self.skipped}; got {n}."
            )
        first = n - self.skipped
        if first == 0:
            return self
        residuals = self.residuals[first:]
        history = self.steps[first].history
        if history:  # the run now starts without a step before: what the history term gave moves into the first residual
            residuals = residuals.clone()
            residuals[0] += history * (self.predictions[first] - self.predictions[first - 1])
        pull = None if self.pull is None else self.pull[first:]
        rest = {"latents": self.latents[first:], "predictions": self.predictions[first:], "pull": pull}
        return dataclasses.replace(self, sigmas=self.sigmas[first:], residuals=residuals, skipped=n, **rest)

    def to(self, *args, **kwargs) -> NoiseMaps:
        """The same maps on another device, or with latents, predictions and mask in another dtype; the arguments are those of ``Tensor.to``."""
        latents, predictions = self.latents.to(*args, **kwargs), self.predictions.to(*args, **kwargs)
        rest = {name: None if (tensor := getattr(self, name)) is None else tensor.to(*args, **kwargs) for name in _OPTIONAL}
        return dataclasses.replace(self, latents=latents, predictions=predictions, residuals=self.residuals.to(latents.device), **rest)

    def save(self, path: str | os.PathLike, metadata: Mapping[str, str] | None = None, *, half: bool = False) -> None:
        """Write a safetensors file, whole or not at all; ``metadata`` adds strings of the caller's own to its header.

        ``half`` rounds latents, residuals and predictions to float16: 3/8 of the size, and the picture comes back only nearly. Raises ValueError where
        float16 cannot hold a value.
        """
        from safetensors.torch import save_file

        own = {
            "format": FORMAT,
            "version": VERSION,
            "eta": repr(float(self.eta)),
            "solver": self.solver.value,
            "process": self.process.value,
            "seed": str(self.seed),
            "skipped": str(self.skipped),
        }
        held = {name: tensor for name in (*_TENSORS, *_OPTIONAL) if (tensor := getattr(self, name)) is not None}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in held.items()}
        if half:
            tensors |= {name: tensors[name].half() for name in _HALVED}
            for name in _HALVED:
                check_finite(tensors[name], f"{name} in float16 (save them in full precision)")
        unfinished = f"{os.fspath(path)}.{uuid.uuid4().hex}.part"
        try:
            save_file(tensors, unfinished, metadata={**(metadata or {}), **own})
            os.replace(unfinished, path)
        finally:
            Path(unfinished).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike, *, limit: float = math.inf) -> NoiseMaps:
        """Read a file of ``save``. Raises FileNotFoundError, or ValueError for anything that is not a whole, valid file of this format.

        Names, types and sizes are checked before any value is read; a file whose maps would take more than ``limit`` bytes is refused.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                meta = file.metadata() or {}
                _check_header(path, meta, file, limit)
                tensors = {name: _widened(name, file.get_tensor(name)) for name in file.keys()}
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} must be a whole safetensors file with noise maps; reading it failed: {error}.") from error
        try:
            own = {"eta": float(meta["eta"]), "solver": Solver(meta["solver"]), "process": Process(meta["process"])}
            own |= {"seed": int(meta["seed"]), "skipped": int(meta["skipped"])}
            return cls(**tensors, **own)
        except KeyError as error:
            raise ValueError(f"{path} must name eta, solver, process, seed and skipped in its header; {error} is missing.") from error
        except ValueError as error:
            raise ValueError(f"{path} does not hold valid noise maps: {str(error)[:400]}") from error


def _widened(name: str, tensor: Tensor) -> Tensor:
    """A tensor of a file in memory of its own (the file may change), and float16 as the container has it."""
    wide = torch.float64 if name == "residuals" else torch.float32
    return tensor.to(wide) if tensor.dtype == torch.float16 else tensor.clone()


def _check_header(path, meta: Mapping[str, str], file, limit: float) -> None:
    """``file`` is an open safetensors file; nothing but its header is read."""
    if meta.get("format") != FORMAT:
        raise ValueError(f"{path} must be a noise maps file (format {FORMAT!r}); its header says {_short(meta.get('format'))}.")
    if meta.get("version") != VERSION:
        raise ValueError(f"{path} must have format version {VERSION!r}; it has {_short(meta.get('version'))}. Update the node pack, or make the maps again.")
    names, expected = set(file.keys()), set(_TENSORS)
    if names - set(_OPTIONAL) != expected:
        raise ValueError(f"{path} must hold the tensors {sorted(expected)}, and may hold {' and '.join(_OPTIONAL)}; it holds {_short(sorted(names))}.")
    needed = 0
    for name in sorted(names):
        tensor = file.get_slice(name)
        dtype, shape = tensor.get_dtype(), tensor.get_shape()
        allowed = _STORED.get(name, ("F32", "F64"))
        if dtype not in allowed:
            raise ValueError(f"{path} must hold {name} as {' or '.join(allowed)}; it holds {dtype}.")
        if name == "sigmas" and (len(shape) != 1 or shape[0] > MOST_STEPS + 1):
            raise ValueError(f"{path} must hold sigmas of shape (S+1,) for at most {MOST_STEPS} steps; got {tuple(shape)}.")
        needed += math.prod(shape) * (8 if dtype == "F64" or name == "residuals" else 4)
    if needed > limit:
        raise ValueError(f"{path} holds maps that take {needed / 1e6:.0f} MB of memory; {limit / 1e6:.0f} MB are free.")


def _short(value) -> str:
    """What a file says, for an error: a hostile one may say megabytes."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def _check_values(maps: NoiseMaps) -> None:
    latents = maps.latents
    count, shape = len(maps.sigmas) - 1, tuple(latents.shape[1:])
    if latents.dim() not in (5, 6) or 0 in shape:
        raise ValueError(f"latents must have shape (S+1, B, C, H, W) or (S+1, B, C, T, H, W), none of them 0; got {tuple(latents.shape)}.")
    for name, length in (("latents", count + 1), ("residuals", count), ("predictions", count)):
        tensor = getattr(maps, name)
        if tuple(tensor.shape) != (length, *shape):
            raise ValueError(f"{name} must have shape {(length, *shape)} for {count + 1} sigmas; got {tuple(tensor.shape)}.")
        dtypes = (torch.float64,) if name == "residuals" else (torch.float32, torch.float64)
        if tensor.dtype not in dtypes or tensor.device != latents.device:
            wanted = " or ".join(map(str, dtypes))
            raise ValueError(f"{name} must be {wanted}, on the device of the latents ({latents.device}); got {tensor.dtype} on {tensor.device}.")
        check_finite(tensor, name)
    batch, spatial = shape[0], shape[2:]
    for name, lead in (("mask", ()), ("pull", (count,))):
        tensor = getattr(maps, name)
        if tensor is None:
            continue
        fits = tuple(tensor.shape) in ((*lead, 1, 1, *spatial), (*lead, batch, 1, *spatial)) and tensor.device == latents.device
        if not fits or tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"{name} must be float32 or float64 of shape {(*lead, batch, 1, *spatial)} or {(*lead, 1, 1, *spatial)} on {latents.device}; "
                f"got {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}."
            )
        check_finite(tensor, name)
        low, high = tensor.min().item(), tensor.max().item()
        if low < 0 or (name == "mask" and high > 1):
            raise ValueError(f"{name} must {'lie in [0, 1]' if name == 'mask' else 'be 0 or more'}; got values from {low:g} to {high:g}.")


class NotFinite(ValueError):
    """A tensor holds NaN or infinity."""


def check_finite(tensor: Tensor, name: str) -> None:
    """Raise NotFinite if a tensor (N, ...) holds NaN or infinity."""
    bad = tensor.numel() - sum(int(torch.isfinite(part).sum()) for part in tensor)  # part by part: maps are large
    if bad:
        raise NotFinite(f"{name} must be finite; {bad} of {tensor.numel()} values are NaN or infinite.")
