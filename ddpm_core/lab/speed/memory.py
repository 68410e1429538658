"""The peak of a run's memory."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch

M_MMAP_THRESHOLD = -3  # of glibc's mallopt


def peak_memory(run: Callable[[], tuple[object, int]], device: torch.device) -> tuple[int | None, int]:
    """Bytes in use at the worst moment of a run beyond those in use before it (None where there is
    no way to tell), and the bytes it keeps for the edit.

    CUDA: what torch has allocated. CPU, on Linux: the resident set, after free memory was given
    back to the system and the kernel's mark of the peak reset. From then on malloc takes tensors of
    64 KiB or more from the system, but where the heap has a hole, and gives them back at once, so
    that a run depends little on those before it; this costs time: first run what is to be timed.
    """
    reset = Path("/proc/self/clear_refs")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        kept = run()[1]
        return torch.cuda.max_memory_allocated(device) - before, kept
    if device.type != "cpu" or not os.access(reset, os.W_OK):
        return None, run()[1]
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
        libc.malloc_trim(0)
    reset.write_text("5")
    before = _resident("VmRSS")
    kept = run()[1]
    return max(_resident("VmHWM") - before, 0), kept


def _resident(line: str) -> int:
    return 1024 * int(re.search(rf"^{line}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[1])
