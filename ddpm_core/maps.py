"""The container of an inverted picture."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from . import maps_file
from .checks import BadArgument, check_finite, check_seed
from .maps_file import MOST_STEPS
from .steps import Process, Solver, Step, schedule

MODEL_WORDS = 200  # letters that a file may say of the model
_FLOATS = (torch.float32, torch.float64)


class Field(NamedTuple):
    """How a tensor of the maps is laid out: (T + ``more``, B, C, *S), without the first axis where
    ``more`` is None, and (1 or B, 1, *S) behind it where it has no channels."""

    more: int | None
    channels: bool = True
    dtypes: tuple[torch.dtype, ...] = _FLOATS
    least: float = -math.inf
    most: float = math.inf
    optional: bool = False


# All that has cells of the picture: what moves, flips and is stored together. The residuals are
# float64, since a rounded one leaves the path by its last digit, which a half-precision model
# rounds to another input: the picture no longer comes back.
FIELDS = {
    "latents": Field(1),
    "residuals": Field(0, dtypes=(torch.float64,)),
    "predictions": Field(0),
    "mask": Field(None, channels=False, least=0, most=1, optional=True),
    "pull": Field(0, channels=False, least=0, optional=True),
}


@dataclass(frozen=True, eq=False)
class NoiseMaps:
    """The edit-friendly code of a batch of latents (arXiv 2304.06140, section 3), in the order of
    execution.

    sigmas       (T+1,) noise levels, strictly decreasing, float64; the last may be 0
    latents      (T+1, B, C, *S) the path x; the last one is the clean latent x_0
    residuals    (T, B, C, *S) x_next - mean, that is up z, float64
    predictions  (T, B, C, *S) x0_hat on the path
    eta, solver, process   what a replay needs to be exact
    seed         of the path's noise; item i of the batch has seed + i
    skipped      steps of the whole schedule that were left out before the first one held here
    mask         None or (1 or B, 1, *S) in [0, 1]: 1 where an edit may change the latent
    pull         None or (T, 1 or B, 1, *S) at least 0: a step subtracts pull x0_hat with the
                 prediction of the run itself; the residuals hold pull times where a colour push
                 leads to
    guidance     None or what the picture was inverted with (0 or more)
    model        None or the model that it was inverted with, in the host's words (a line)

    Latents, predictions, mask and pull are float32 (or float64), and all share one device
    (``FIELDS``). Anything that does not fit is a BadArgument, raised once, here.
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
    guidance: float | None = None
    model: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "sigmas", torch.as_tensor(self.sigmas, dtype=torch.float64, device="cpu"))
        if self.sigmas.dim() != 1:
            raise BadArgument("sigmas", f"sigmas must have shape (T+1,); got {tuple(self.sigmas.shape)}.")
        schedule(self.sigmas, eta=self.eta, solver=self.solver, process=self.process)
        if self.latents.dim() not in (5, 6) or 0 in self.latents.shape[1:]:
            shapes = "(T+1, B, C, H, W) or (T+1, B, C, F, H, W), none of them 0"
            raise BadArgument("latents", f"latents must have shape {shapes}; got {tuple(self.latents.shape)}.")
        for name, tensor in self.tensors().items():
            self._check(name, FIELDS[name], tensor)
        if self.skipped < 0:
            raise BadArgument("skipped", f"skipped must be 0 or more; got {self.skipped}.")
        if self.total_steps > MOST_STEPS:
            rule = f"maps may have at most {MOST_STEPS} steps, the skipped ones included"
            raise BadArgument("skipped", f"{rule}; got {self.total_steps}.")
        check_seed(self.seed)
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise BadArgument("guidance", f"guidance must be 0 or more; got {self.guidance}.")
        if self.model is not None and not (len(self.model) <= MODEL_WORDS and self.model.isprintable()):
            rule = f"model must be a line of at most {MODEL_WORDS} letters"
            raise BadArgument("model", f"{rule}; got {self.model[:MODEL_WORDS]!r} of {len(self.model)}.")

    def _check(self, name: str, field: Field, tensor: Tensor) -> None:
        batch, channels, *spatial = self.latents.shape[1:]
        lead = [] if field.more is None else [len(self.sigmas) - 1 + field.more]
        shapes = [(*lead, batch, channels if field.channels else 1, *spatial)]
        if not field.channels and batch > 1:
            shapes.append((*lead, 1, 1, *spatial))
        if tuple(tensor.shape) not in shapes:
            wanted = " or ".join(str(shape) for shape in shapes)
            got = tuple(tensor.shape)
            raise BadArgument(name, f"{name} must have shape {wanted} for {len(self.sigmas)} sigmas; got {got}.")
        device = self.latents.device
        if tensor.dtype not in field.dtypes or tensor.device != device:
            wanted = f"{' or '.join(map(str, field.dtypes))}, on the device of the latents ({device})"
            raise BadArgument(name, f"{name} must be {wanted}; got {tensor.dtype} on {tensor.device}.")
        check_finite(tensor, name)
        if math.isfinite(field.least):
            low, high = tensor.min().item(), tensor.max().item()
            if low < field.least or high > field.most:
                rule = "be 0 or more" if math.isinf(field.most) else f"lie in [{field.least:g}, {field.most:g}]"
                raise BadArgument(name, f"{name} must {rule}; got values from {low:g} to {high:g}.")

    def tensors(self) -> dict[str, Tensor]:
        """The fields of ``FIELDS`` that these maps have."""
        return {name: tensor for name in FIELDS if (tensor := getattr(self, name)) is not None}

    @cached_property
    def steps(self) -> list[Step]:
        """The T transitions that the maps belong to."""
        return schedule(self.sigmas, eta=self.eta, solver=self.solver, process=self.process)

    def step_at(self, sigma: Tensor) -> int:
        """The step that starts at a denoiser's noise level (N,), which a model may have rounded."""
        return int((self.sigmas[:-1] - sigma[0].cpu().double()).abs().argmin())

    @property
    def total_steps(self) -> int:
        """Steps of the whole schedule, the skipped ones included."""
        return self.skipped + len(self.residuals)

    @property
    def times(self) -> list[float]:
        """Where each step starts, in per cent of the whole schedule: 100 is its noisy end, 0 the
        clean picture."""
        total = self.total_steps
        return [100 * (total - self.skipped - i) / total for i in range(len(self.residuals))]

    @property
    def noise(self) -> Tensor:
        """What each step adds to its mean on the path, up z (T, B, C, *S): the residuals, with a
        push's pull at the path's own predictions."""
        return self.residuals if self.pull is None else self.residuals - self.pull * self.predictions

    @property
    def z(self) -> Tensor:
        """The paper's noise maps z_t (T, B, C, *S) on the path, eq. 5: noise / up. Raises
        ValueError where a step adds none."""
        ups = self.per_step([step.up for step in self.steps])
        if (ups == 0).any():
            where = ", ".join(str(i) for i in (ups == 0).flatten().nonzero().flatten().tolist())
            reason = f"z = residual / up needs noise in every step (eta {self.eta:g})"
            raise ValueError(f"{reason}; up is 0 at step {where}: use residuals there.")
        return self.noise / ups

    def per_step(self, values: list[float]) -> Tensor:
        """One value a step, or a level, in the shape that multiplies residuals or latents: (len, 1,
        1, ...), float64."""
        return self.residuals.new_tensor(values).view(-1, *[1] * (self.latents.dim() - 1))

    def skip(self, n: int) -> NoiseMaps:
        """The maps from step ``n`` of the whole schedule on: fewer steps, more of the picture kept.
        Raises BadArgument."""
        if not self.skipped <= n < self.total_steps:
            rule = f"skip must lie in [{self.skipped}, {self.total_steps - 1}]"
            reason = f"the maps have {self.total_steps} steps, made with skip {self.skipped}"
            raise BadArgument("skip", f"{rule}: {reason}; got {n}.")
        first = n - self.skipped
        if first == 0:
            return self
        rest = {name: tensor[first:] for name, tensor in self.tensors().items() if FIELDS[name].more is not None}
        history = self.steps[first].history
        if history:  # no step comes before the first one any more: its residual takes over what the history gave
            residuals = rest["residuals"] = rest["residuals"].clone()
            residuals[0] += history * (self.predictions[first] - self.predictions[first - 1])
        return dataclasses.replace(self, sigmas=self.sigmas[first:], skipped=n, **rest)

    def to(self, *args, **kwargs) -> NoiseMaps:
        """The same maps on another device, or with latents, predictions, mask and pull in another
        dtype; the arguments are those of ``Tensor.to``."""
        tensors = {name: tensor.to(*args, **kwargs) for name, tensor in self.tensors().items()}
        tensors["residuals"] = self.residuals.to(tensors["latents"].device)
        return dataclasses.replace(self, **tensors)

    def save(self, path: str | os.PathLike, metadata: Mapping[str, str] | None = None, *, half: bool = False) -> None:
        """Write a safetensors file, whole or not at all; ``metadata`` adds strings of the caller's
        own to its header.

        ``half`` rounds latents, residuals and predictions to float16: 3/8 of the size, and the
        picture comes back only nearly. Raises NotFinite where float16 cannot hold a value.
        """
        own = {
            "eta": repr(float(self.eta)),
            "solver": self.solver.value,
            "process": self.process.value,
            "seed": str(self.seed),
            "skipped": str(self.skipped),
        }
        if self.guidance is not None:
            own["guidance"] = repr(float(self.guidance))
        if self.model is not None:
            own["model"] = self.model
        tensors = self.tensors()
        if half:
            tensors |= {name: tensors[name].half() for name, field in FIELDS.items() if field.channels}
            for name, tensor in tensors.items():
                check_finite(tensor, name, f"{name} in float16 (save them in full precision)")
        maps_file.write(path, {"sigmas": self.sigmas, **tensors}, {**(metadata or {}), **own})

    @classmethod
    def load(cls, path: str | os.PathLike, *, limit: float = math.inf) -> NoiseMaps:
        """Read a file of ``save``. Raises FileNotFoundError, or BadArgument for anything that is
        not a whole, valid file of this format.

        Names, types and sizes are checked before any value is read; a file whose maps would take
        more than ``limit`` bytes is refused.
        """
        # sigmas have no cells: (T+1,), always float64. float16 is what ``half`` wrote.
        allowed = {"sigmas": (torch.float64,)}
        for name, field in FIELDS.items():
            allowed[name] = (torch.float16, *field.dtypes) if field.channels else field.dtypes
        optional = {name for name, field in FIELDS.items() if field.optional}
        tensors, meta = maps_file.read(path, allowed, optional, limit=limit)
        try:
            own = {"eta": float(meta["eta"]), "solver": Solver(meta["solver"]), "process": Process(meta["process"])}
            own |= {"seed": int(meta["seed"]), "skipped": int(meta["skipped"])}
            own["guidance"] = float(meta["guidance"]) if "guidance" in meta else None  # since version 0.2
            own["model"] = meta.get("model")  # since version 0.2
            return cls(**tensors, **own)
        except KeyError as error:
            needed = "eta, solver, process, seed and skipped"
            raise BadArgument("path", f"{path} must name {needed} in its header; {error} is missing.") from error
        except ValueError as error:
            raise BadArgument("path", f"{path} does not hold valid noise maps: {str(error)[:400]}") from error
