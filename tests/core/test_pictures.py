"""Picture files of every kind come in as what they show, or are refused with what to do."""

import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_core.measure.pictures import MOST_RATIO, load_picture, save_picture

RAMP = np.linspace(0, 1, 16, dtype=np.float64).repeat(16).reshape(16, 16)


def loaded(path, side=16):
    return load_picture(path, side, 8)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_of_grey_are_scaled_by_their_range(tmp_path, name):
    path = tmp_path / name
    Image.fromarray((RAMP * 65535).round().astype(np.uint16)).save(path)
    picture = loaded(path)
    assert (picture - torch.from_numpy(RAMP)).abs().max() <= 1 / 255
    assert picture.shape == (1, 3, 16, 16)


def test_floats_are_grey_from_0_to_1(tmp_path):
    path = tmp_path / "float.tif"
    Image.fromarray(RAMP.astype(np.float32)).save(path)
    assert (loaded(path) - torch.from_numpy(RAMP)).abs().max() <= 1 / 255


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (RAMP.astype(np.float32) * 200, r"mode F must lie in \[0, 1\]; got values from 0 to 200"),
        (np.full((16, 16), np.nan, np.float32), "got values from nan"),
        ((RAMP * 2**30).astype(np.int32), r"mode I must lie in \[0, 65535\].*save the picture with 8 or 16 bits"),
        ((RAMP - 0.5).astype(np.float32), "got values from -0.5 to 0.5"),
    ],
)
def test_a_range_that_is_not_known_is_refused(tmp_path, values, words):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=words):
        loaded(tmp_path / "x.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_is_white_whatever_lies_under_it(tmp_path, mode):
    hidden, shown = (10, 10, 10), (100, 100, 100)
    picture = Image.new("RGB", (16, 16), hidden)
    picture.paste(shown, (8, 0, 16, 16))
    options = {}
    if mode in ("RGBA", "LA"):
        alpha = Image.new("L", (16, 16), 0)
        alpha.paste(255, (8, 0, 16, 16))
        picture = picture.convert(mode)
        picture.putalpha(alpha)
    elif mode == "P":
        picture = picture.quantize(2)
        options = {"transparency": picture.getpixel((0, 0))}
    else:
        options = {"transparency": hidden}
    picture.save(tmp_path / "x.png", **options)
    assert (loaded(tmp_path / "x.png")[..., :8] == 1).all()
    assert (loaded(tmp_path / "x.png")[..., 8:] == 100 / 255).all()


def test_half_transparent_colours_are_blended(tmp_path):
    Image.new("RGBA", (16, 16), (0, 0, 255, 128)).save(tmp_path / "x.png")
    assert (loaded(tmp_path / "x.png")[0, :, 0, 0] * 255).round().tolist() == [127, 127, 255]


def test_long_and_large_pictures_are_refused(tmp_path):
    Image.new("RGB", (10_000, 1)).save(tmp_path / "long.png")
    with pytest.raises(ValueError, match="10000 x 1 pixels; the longer side may be 8 times the shorter one: cut it"):
        loaded(tmp_path / "long.png", 64)
    Image.new("RGB", (16, 16 * MOST_RATIO)).save(tmp_path / "high.png")
    assert loaded(tmp_path / "high.png", 8).shape == (1, 3, 8 * MOST_RATIO, 8)
    with pytest.raises(ValueError, match=r"scaled to 5000 x 40000, more than 16.8 million pixels: take a smaller side"):
        loaded(tmp_path / "high.png", 5000)


def png_that_claims(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png_that_claims(50_000, 50_000), "must be a picture.*decompression bomb"),
        (png_that_claims(16, 16), "must be a picture that Pillow can read; reading it failed"),
        (b"text", "must be a picture that Pillow can read"),
    ],
)
def test_files_that_are_no_whole_pictures_are_value_errors(tmp_path, data, words):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ValueError, match=words) as caught:
        loaded(tmp_path / "x.png")
    assert re.match(r"[^\n]+$", str(caught.value))


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        loaded("/absent.png")


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    path, earlier = tmp_path / "x.png", Image.new("RGB", (8, 8), "red")
    save_picture(earlier, path)
    before = path.read_bytes()

    class Full(type(earlier)):
        def save(self, file, format=None):
            with open(file, "wb") as opened:
                opened.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save_picture(Full(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.png"]
    save_picture(Image.new("RGB", (8, 8), "blue"), tmp_path / "y.JPG")
    assert Image.open(tmp_path / "y.JPG").format == "JPEG"
