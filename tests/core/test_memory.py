"""Large maps: no edit and no file takes much more memory than what it makes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURED = """
import json, sys
import torch
from ddpm_core import NoiseMaps, flip, mix, scale, shift
from ddpm_core.lab.speed.memory import peak_memory

torch.set_num_threads(1)
STEPS, SHAPE = 32, (1, 4, 200, 160)
draw = lambda count, dtype: torch.randn(count, *SHAPE, dtype=dtype)
sigmas = torch.linspace(14, 0, STEPS + 1, dtype=torch.float64)


def maps(skipped=0):
    tensors = draw(STEPS + 1, torch.float32), draw(STEPS, torch.float64), draw(STEPS, torch.float32)
    return NoiseMaps(sigmas, *tensors, skipped=skipped)


one, other, folder = maps(), maps(), sys.argv[1]
size = sum(tensor.nbytes for tensor in one.tensors().values())
one.save(f"{folder}/full"), one.save(f"{folder}/half", half=True)
work = {
    "load": lambda: NoiseMaps.load(f"{folder}/full"),
    "load half": lambda: NoiseMaps.load(f"{folder}/half"),
    "mix": lambda: mix(one, other, 0.4),
    "shift": lambda: shift(one, 3, 0),
    "wrap": lambda: shift(one, 3, 0, fill="wrap"),
    "scale": lambda: scale(one, 0.4),
}
small = lambda: mix(one.skip(31), other.skip(31), 0.4)
small()
print(json.dumps({name: peak_memory(lambda: (run(), 0), torch.device("cpu"))[0] / size for name, run in work.items()}))
"""


@pytest.fixture(scope="module")
def peaks(tmp_path_factory):
    """Peak of the resident set during each piece of work, in sizes of the maps that it makes."""
    if sys.platform != "linux":
        pytest.skip("a process's peak of memory is read as Linux tells it")
    command = [sys.executable, "-c", MEASURED, str(tmp_path_factory.mktemp("maps"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "most"),
    [("load", 1.2), ("load half", 1.2), ("mix", 1.4), ("wrap", 1.2), ("shift", 1.8), ("scale", 1.7)],
)
def test_the_peak_is_little_more_than_what_is_made(peaks, name, most):
    """Shift and scale draw noise, and from one call with all that comes before it in the stream."""
    assert 0.9 < peaks[name] < most
