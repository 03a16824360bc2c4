"""Sheets and their codelengths: what decoders return, closed forms, coders that are absent or not exact."""

import io
import math
import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image

from ddpm_eval.data.datasets import load
from ddpm_eval.metrics.image_coders import CODERS, Coder, code_images, encode, image_sheet
from ddpm_eval.spec import DataSpec

PNG, WEBP, JPEG_XL, AVIF = CODERS


def random_images(n, channels=3, height=4, width=6):
    return np.random.default_rng(0).integers(0, 256, (n, channels, height, width), np.uint8)


def cells(sheet, height, width):
    """Cut a sheet into its images with loops."""
    sheet = sheet if sheet.ndim == 3 else sheet[..., None]
    return [
        sheet[top : top + height, left : left + width].transpose(2, 0, 1)
        for top in range(0, sheet.shape[0], height)
        for left in range(0, sheet.shape[1], width)
    ]


def unfiltered_png(file, channels):
    """Decode a PNG of 8 bits a channel without interlacing by the five filters of its specification."""
    data, position, size = b"", 8, (0, 0)
    while position < len(file):
        length, kind = struct.unpack_from(">I4s", file, position)
        body = file[position + 8 : position + 8 + length]
        size = struct.unpack_from(">II", body) if kind == b"IHDR" else size
        data += body if kind == b"IDAT" else b""
        position += 12 + length
    width, height = size
    raw = zlib.decompress(data)
    rows, previous = [], [0] * (width * channels)
    for y in range(height):
        line = raw[y * (width * channels + 1) : (y + 1) * (width * channels + 1)]
        row = []
        for x, value in enumerate(line[1:]):
            a = row[x - channels] if x >= channels else 0
            b, c = previous[x], previous[x - channels] if x >= channels else 0
            paeth = min((a, b, c), key=lambda z: abs(a + b - c - z))
            row.append((value + (0, a, b, (a + b) // 2, paeth)[line[0]]) % 256)
        rows.append(row)
        previous = row
    return np.array(rows, np.uint8).reshape(height, width, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 12, 13])
def test_a_sheet_holds_every_image_once_and_then_black(n, channels):
    images = random_images(n, channels)
    sheet = image_sheet(images)
    assert sheet.ndim == (2 if channels == 1 else 3)
    found = cells(sheet, 4, 6)
    assert np.array_equal(np.stack(found[:n]), images)
    assert not np.any(found[n:])
    down, across = sheet.shape[0] // 4, sheet.shape[1] // 6
    assert down <= across <= down + 2
    assert len(found) - n < down  # no column is empty


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_decoded_by_its_specification(channels):
    smooth = np.cumsum(np.cumsum(random_images(5, channels) // 64, axis=2), axis=3).astype(np.uint8)
    sheet = image_sheet(smooth)
    decoded = unfiltered_png(encode(sheet, PNG), channels)
    assert np.array_equal(decoded, sheet.reshape(decoded.shape))


@pytest.mark.parametrize("channels", [1, 3])
def test_png_and_webp_return_every_pixel(channels):
    images = random_images(7, channels)
    for coder, result in zip((PNG, WEBP), code_images(images, (PNG, WEBP)), strict=True):
        file = encode(image_sheet(images), coder)
        with Image.open(io.BytesIO(file)) as image:
            decoded = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        sheet = image_sheet(np.repeat(images, 3 // channels, axis=1))
        assert np.array_equal(decoded, sheet.transpose(2, 0, 1))
        assert (result.coder, result.size_bytes, result.reason) == (coder.name, len(file), "")


def test_noise_takes_eight_bits_and_little_more():
    """Noise has an entropy of 8 bits/dim; deflate adds at most 0.1%, a PNG a byte a row and a header."""
    images = random_images(64, 3, 16, 16)
    png, webp = code_images(images, (PNG, WEBP))
    filters = 8 * 128 / images.size  # one byte a row
    assert 8 < png.bits_per_dim < 8 * 1.001 + filters + 8 * 100 / images.size
    assert 8 < webp.bits_per_dim < 8.1


def test_bits_are_those_of_the_file_for_each_element_of_the_images():
    images = random_images(7)
    (result,) = code_images(images, (PNG,))
    file = encode(image_sheet(images), PNG)
    assert result.bits_per_dim == 8 * len(file) / (7 * 3 * 4 * 6)
    assert (result.n_images, result.dimensions) == (7, 7 * 3 * 4 * 6)  # of 9 cells, 2 are blank
    assert (result.height, result.width) == (12, 18)
    assert (result.options, result.pillow) == ("optimize True", PIL.__version__)


def test_constant_images_cost_a_header():
    for result in code_images(np.full((100, 1, 8, 8), 200, np.uint8), (PNG, WEBP)):
        assert 8 * result.size_bytes / (100 * 8 * 8) == result.bits_per_dim
        assert result.size_bytes < 150


def test_a_coder_that_changes_pixels_is_left_out_with_its_reason():
    lossy = Coder("WebP", "WEBP", {"quality": 50})
    (result,) = code_images(random_images(4), (lossy,))
    assert (result.size_bytes, math.isnan(result.bits_per_dim)) == (None, True)
    assert result.reason == f"WebP of Pillow {PIL.__version__} is not exact: other pixels are decoded"


def test_a_colour_cast_on_grayscale_is_no_exact_code(monkeypatch):
    """Red and blue that cancel in the luminance are other pixels all the same."""
    sheet = np.full((8, 8), 100, np.uint8)
    cast = np.dstack([sheet + 10, sheet - 5, sheet]).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.fromarray(cast).convert("L")), sheet)
    monkeypatch.setattr(Image, "open", lambda *_, **__: Image.fromarray(cast))
    with pytest.raises(ValueError, match="is not exact"):
        encode(sheet, PNG)


def test_an_absent_coder_is_left_out_with_its_reason(monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.SAVE, "WEBP")
    png, webp = code_images(random_images(4), (PNG, WEBP))
    assert png.size_bytes
    assert (webp.size_bytes, webp.reason) == (None, f"Pillow {PIL.__version__} cannot write and read WebP")


def test_a_coder_that_fails_is_left_out_with_its_reason():
    wide = np.zeros((1, 1, 1, 20_000), np.uint8)  # WebP ends at 16,383 pixels
    (result,) = code_images(wide, (WEBP,))
    assert result.size_bytes is None
    assert result.reason.startswith("WebP failed: ")


def test_modern_coders_are_exact_or_left_out():
    images = np.cumsum(random_images(9, 1) // 64, axis=3).astype(np.uint8)
    for coder, result in zip((JPEG_XL, AVIF), code_images(images, (JPEG_XL, AVIF)), strict=True):
        assert (result.size_bytes is None) == bool(result.reason)
        if result.size_bytes is not None:
            with Image.open(io.BytesIO(encode(image_sheet(images), coder))) as image:
                assert np.array_equal(np.asarray(image.convert("L")), image_sheet(images))


def test_coders_of_the_digits_beat_the_uniform_code_but_not_one_histogram():
    """Between 2.99 (one histogram of the levels) and 4.09 (17 levels) bits/dim."""
    test = load(DataSpec(name="digits", channels=1, side=8), "test")
    for result in code_images(test.array, (PNG, WEBP)):
        assert 2.99 < result.bits_per_dim < math.log2(17)


def test_other_arrays_are_sentences():
    with pytest.raises(ValueError, match="uint8"):
        code_images(random_images(3) / 255)
    with pytest.raises(ValueError):
        code_images(random_images(3)[:0])
