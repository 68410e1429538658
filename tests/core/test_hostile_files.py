"""A file of noise maps that somebody broke, by accident or on purpose, is refused with a ValueError
and costs little memory."""

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ddpm_core import NoiseMaps

DATA = Path(__file__).parent / "data"
WHOLE = (DATA / "maps-1.safetensors").read_bytes()
HEADER_LENGTH = struct.unpack("<Q", WHOLE[:8])[0]
HEADER = json.loads(WHOLE[8 : 8 + HEADER_LENGTH])
NAMES = [name for name in HEADER if name != "__metadata__"]

thorough = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "maps.safetensors"


def check_refused_or_sound(place, content: bytes) -> bool:
    """Whether the file was taken; what is taken is valid by the container's own check, and anything
    else than a ValueError fails the test."""
    place.write_bytes(content)
    try:
        maps = NoiseMaps.load(place)
    except ValueError:
        return False
    assert all(torch.isfinite(getattr(maps, name)).all() for name in ("sigmas", "latents", "residuals", "predictions"))
    return True


def with_header(header: dict, body: bytes = WHOLE[8 + HEADER_LENGTH :]) -> bytes:
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def flipped(bits: list[int]) -> bytes:
    """The whole file with these bits the other way round."""
    content = bytearray(WHOLE)
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


@thorough
@given(st.lists(st.integers(0, 8 * len(WHOLE) - 1), min_size=1, max_size=8))
def test_bit_flips_anywhere(place, flips):
    check_refused_or_sound(place, flipped(flips))


@thorough
@given(st.lists(st.integers(0, 8 * (8 + HEADER_LENGTH) - 1), min_size=1, max_size=4))
def test_bit_flips_in_the_header(place, flips):
    check_refused_or_sound(place, flipped(flips))


@thorough
@given(st.integers(0, len(WHOLE) - 1))
def test_truncation_anywhere(place, kept):
    assert not check_refused_or_sound(place, WHOLE[:kept])


@thorough
@given(st.binary(max_size=300))
def test_any_bytes(place, content):
    assert not check_refused_or_sound(place, content)


SIZES = st.one_of(st.integers(0, 16), st.sampled_from([2**31, 2**40, 2**62, 2**63, 2**64 - 1, 2**64, -1]))
TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F64", "F32", "F16", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "F99"]),
        "shape": st.lists(SIZES, max_size=7),
        "data_offsets": st.tuples(SIZES, SIZES),
    }
)


@thorough
@given(st.sampled_from(NAMES), TENSOR)
@example("sigmas", {**HEADER["sigmas"], "shape": [2**62]})
def test_declared_types_shapes_and_places(place, name, declared):
    assert not check_refused_or_sound(place, with_header({**HEADER, name: declared}))


@thorough
@given(st.sampled_from(NAMES), st.permutations([6, 1, 4, 8, 12]), st.sampled_from(["F64", "F32", "I64"]))
def test_shapes_that_fit_the_bytes_but_not_each_other(place, name, shape, dtype):
    taken = check_refused_or_sound(
        place, with_header({**HEADER, name: {**HEADER[name], "shape": shape, "dtype": dtype}})
    )
    assert not taken or (shape, dtype) == (HEADER[name]["shape"], HEADER[name]["dtype"])


TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["nan", "inf", "-1", "1e400", "9" * 5000, "0x10", "", "../..", "first_order\0"]),
)


@thorough
@given(st.sampled_from(["format", "version", "eta", "solver", "process", "seed", "skipped"]), TEXTS)
def test_what_the_metadata_say(place, key, value):
    meta = {**HEADER["__metadata__"], key: value}
    check_refused_or_sound(place, with_header({**HEADER, "__metadata__": meta}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("skipped", "1000000"),
        ("skipped", str(10**11)),
        ("skipped", "-1"),
        ("seed", "-5"),
        ("seed", str(2**64)),
        ("eta", "1.5"),
    ],
)
def test_numbers_that_no_maps_have_are_refused(place, key, value):
    """Such as one that would have a shift draw noise for a million steps."""
    meta = {**HEADER["__metadata__"], key: value}
    assert not check_refused_or_sound(place, with_header({**HEADER, "__metadata__": meta}))


def test_an_error_is_short_whatever_the_file_says(place):
    long = {**HEADER["__metadata__"], "version": "1" * 10**6}
    many = {**HEADER, **{f"{i}": HEADER["sigmas"] for i in range(2000)}}
    for header in (
        {**HEADER, "__metadata__": long},
        {**HEADER, "__metadata__": {**long, "version": "1", "solver": "x" * 10**6}},
        many,
    ):
        place.write_bytes(with_header(header))
        with pytest.raises(ValueError, match="must|does not") as caught:
            NoiseMaps.load(place)
        assert len(str(caught.value)) < 1000 + len(str(place))


def test_the_limit_is_what_the_maps_take(place):
    place.write_bytes(WHOLE)
    maps = NoiseMaps.load(place)
    needed = sum(tensor.nbytes for tensor in vars(maps).values() if isinstance(tensor, torch.Tensor))
    assert NoiseMaps.load(place, limit=needed).seed == maps.seed
    with pytest.raises(ValueError, match="of memory"):
        NoiseMaps.load(place, limit=needed - 1)


LOADER = """
import resource, sys
import torch
from ddpm_core import NoiseMaps

torch.set_num_threads(1)
NoiseMaps.load(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    NoiseMaps.load(sys.argv[2], limit=1e9)
except ValueError as error:
    print("refused:", error)
print("grew", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, "MB")
"""


def sparse(place, header: dict, size: int) -> None:
    """A file of this size that takes no space on disk."""
    raw = json.dumps(header).encode()
    with open(place, "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + size)


def consistent(steps: int, cells: int) -> tuple[dict, int]:
    """The header of maps with this many steps of (1, 1, 1, cells), and the size of their body."""
    header, offset = {"__metadata__": HEADER["__metadata__"]}, 0
    for name, dtype, width, shape in (
        ("latents", "F32", 4, [steps + 1, 1, 1, 1, cells]),
        ("predictions", "F32", 4, [steps, 1, 1, 1, cells]),
        ("residuals", "F64", 8, [steps, 1, 1, 1, cells]),
        ("sigmas", "F64", 8, [steps + 1]),
    ):
        size = width * torch.Size(shape).numel()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    return header, offset


@pytest.mark.skipif(sys.platform == "win32", reason="memory is read as on Unix")
@pytest.mark.parametrize(
    ("header", "size", "words"),
    [
        (*consistent(20, 20_000_000), "take 6480 MB of memory; 1000 MB are free"),
        (*consistent(10_000_000, 1), "at most 10000 steps"),
        (
            {"__metadata__": HEADER["__metadata__"], **{str(i): {**HEADER["sigmas"]} for i in range(20_000)}},
            10**6,
            "must be a whole safetensors file",
        ),
        ({**HEADER, "latents": {**HEADER["latents"], "shape": [2**40]}}, 2**33, "must be a whole safetensors file"),
    ],
    ids=["large", "many-steps", "many-tensors", "declared"],
)
@pytest.mark.slow
def test_hostile_files_cost_little_memory(place, header, size, words):
    sparse(place, header, size)
    command = [sys.executable, "-c", LOADER, str(DATA / "maps-1.safetensors"), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    place.unlink()
    assert words in done.stdout
    assert int(re.search(r"grew (\d+) MB", done.stdout)[1]) < 100


def test_a_header_that_claims_to_be_huge(place):
    assert not check_refused_or_sound(place, struct.pack("<Q", 2**63) + WHOLE[8:])
    assert not check_refused_or_sound(place, struct.pack("<Q", len(WHOLE) * 10) + WHOLE[8:])
