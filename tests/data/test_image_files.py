import os
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ddpm_eval.data.image_files import (
    Shape,
    check_headers,
    decode,
    decode_all,
    decode_file,
    images_in,
    shape_of,
)


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (8, 8, 3), np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def test_pixels_are_the_files_own(tmp_path, rgb):
    colour, grey = save(tmp_path / "a.png", rgb), save(tmp_path / "b.png", rgb[:, :, 0])
    assert np.array_equal(decode(colour, "a", Shape(3, 8, False)), rgb.transpose(2, 0, 1))
    assert np.array_equal(decode(grey, "b", Shape(1, 8, False)), rgb[None, :, :, 0])
    assert shape_of(colour) == ("RGB", 8, 8)


@pytest.mark.parametrize("transpose", [False, True])
def test_crop_takes_the_centre_without_resampling(tmp_path, rng, transpose):
    wide = rng.integers(0, 256, (8, 13), np.uint8)
    file = save(tmp_path / "a.png", wide.T if transpose else wide)
    centre = wide[:, 2:10]  # 5 columns too many: 2 go left, 3 right
    assert np.array_equal(decode(file, "a", Shape(1, 8, True))[0], centre.T if transpose else centre)


def test_resize_averages_and_is_symmetric(tmp_path, rng):
    levels = rng.integers(0, 256, (24, 24), np.uint8)
    small = [
        decode(save(tmp_path / f"{i}.png", a), "", Shape(1, 8, True))[0]
        for i, a in enumerate([levels, levels[::-1], levels.T])
    ]
    for back in (small[1][::-1], small[2].T):  # the two passes round to 8 bits in between: one level
        assert np.abs(back.astype(int) - small[0]).max() <= 1
    # A filter that only picked pixels would keep the deviation of uniform levels, 74; averaging 3x3 of them
    # leaves a third, Lanczos (sharper than a mean) a bit more.
    assert 20 < small[0].std() < 40
    assert (
        abs(small[0].mean() - levels.mean()) < 3
    )  # border weights differ; each of the 576 levels' mean has deviation 3


def test_orientation_tag_is_followed(tmp_path, rgb):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: viewers rotate by 90 degrees clockwise
    file = save(tmp_path / "a.png", rgb, exif=exif)
    assert np.array_equal(decode(file, "a", Shape(3, 8, False)), np.rot90(rgb, -1).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("P", "of mode P"),
        ("RGBA", "of mode RGBA"),
        ("I;16", "of mode I;16"),
        ("1", "of mode 1"),
        ("L", "has 1 channels, but the run asks for 3"),
    ],
)
def test_other_modes_are_refused(tmp_path, mode, sentence):
    file = tmp_path / "a.png"
    Image.new(mode, (8, 8)).save(file)
    with pytest.raises(ValueError, match=f"a.png .*{sentence}"):
        decode(file, str(file), Shape(3, 8, False))


def test_more_than_one_image_in_a_file_is_refused(tmp_path, rgb):
    frames = [Image.fromarray(a) for a in (rgb, rgb[::-1])]
    frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="more than one image"):
        decode(tmp_path / "a.tiff", "a", Shape(3, 8, False))


def test_all_unusable_images_are_counted_and_the_first_named(tmp_path, rgb):
    files = [save(tmp_path / f"{i}.png", rgb) for i in range(6)]
    files[1].write_bytes(files[1].read_bytes()[:-60])
    files[2].write_text("not an image")
    save(files[3], rgb[:5])
    files[5].write_bytes(b"")
    shape = Shape(3, 8, False)
    with pytest.raises(
        ValueError,
        match=r"^4 of 6 images cannot be used: .*1.png cannot.*2.png cannot.*3.png is 8x5 .*; and 1 more$",
    ):
        decode_all(lambda index: decode_file(files, shape, index), shape, 6)
    with pytest.raises(
        ValueError, match=r"^3 of 6 .*2.png .*3.png .*5.png"
    ):  # the headers alone do not show the truncation
        check_headers(files, shape)
    good = [files[0], files[4]]
    check_headers(good, shape)
    assert decode_all(lambda index: decode_file(good, shape, index), shape, 2).shape == (2, 3, 8, 8)


def test_a_damaged_header_is_a_sentence(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"a\.png cannot be decoded"):
        shape_of(tmp_path / "a.png")


def test_images_in_a_folder_come_in_the_order_of_their_paths(tmp_path, rgb):
    for name in ("b/2.png", "b/10.PNG", "a.jpg", "b-0.png", ".hidden.png"):
        save(tmp_path / name, rgb)
    (tmp_path / "notes.txt").write_text("")
    assert [f.relative_to(tmp_path).as_posix() for f in images_in(tmp_path)] == [
        "a.jpg",
        "b-0.png",
        "b/10.PNG",
        "b/2.png",
    ]


@pytest.mark.parametrize("kind", ["pipe", "socket", "loop", "broken link", "device", "folder"])
def test_what_is_no_regular_file_is_refused_and_never_opened(tmp_path, rgb, kind, monkeypatch):
    """A pipe without a writer would be waited for without end."""
    save(tmp_path / "a.png", rgb)
    monkeypatch.chdir(tmp_path)  # the path of a socket may have only a hundred characters
    match kind:
        case "pipe":
            os.mkfifo("x.png")
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind("x.png")
        case "loop":
            os.symlink("x.png", "x.png")
        case "broken link":
            os.symlink("nowhere", "x.png")
        case "device":
            os.symlink("/dev/zero", "x.png")
        case "folder":
            os.symlink(".", "x.png")
    if kind == "folder":  # of images: links to folders are not followed
        assert [file.name for file in images_in(tmp_path)] == ["a.png"]
        return
    with pytest.raises(ValueError, match=r"x\.png is no regular file, or a link that leads to none"):
        images_in(tmp_path)


def test_a_link_to_an_image_is_one(tmp_path, rgb):
    save(tmp_path / "kept" / "a.png", rgb)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.png").symlink_to(tmp_path / "kept" / "a.png")
    assert [file.name for file in images_in(tmp_path / "folder")] == ["b.png"]


def png_of_zeros(path, width, height):
    """Write a grayscale PNG of any size in a file of a thousandth of its pixels, without holding them."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("size", [(8200, 8200), (13000, 13000), (2**26, 2), (2**30, 2**30)])
def test_an_image_that_would_expand_beyond_measure_is_refused_by_its_header(
    tmp_path, crop, size, monkeypatch
):
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    bomb = png_of_zeros(tmp_path / "x.png", 1, 1).read_bytes()
    header = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    (tmp_path / "x.png").write_bytes(
        bomb[:12] + header + struct.pack(">I", zlib.crc32(header)) + bomb[16 + 13 + 4 :]
    )
    with pytest.raises(ValueError, match=r"x\.png (is \d+x\d+ pixels|cannot be decoded .*pixels)"):
        decode(tmp_path / "x.png", "x.png", Shape(1, 8, crop))
    with pytest.raises(ValueError, match=r"1 of 1 images cannot be used"):
        check_headers([tmp_path / "x.png"], Shape(1, 8, crop))


def test_large_images_up_to_the_limit_are_decoded(tmp_path):
    assert decode(png_of_zeros(tmp_path / "x.png", 4200, 4000), "x", Shape(1, 8, True)).sum() == 0


def test_folders_without_images_are_sentences(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="holds no images"):
        images_in(tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        images_in(tmp_path / "absent")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        images_in(tmp_path / "notes.txt")


def test_an_unreadable_subfolder_is_not_skipped(tmp_path, rgb, monkeypatch):
    save(tmp_path / "a.png", rgb)
    locked = tmp_path / "locked"
    locked.mkdir()
    scandir = os.scandir  # the tests may run as root, whom no permission stops

    def refuse(path):
        if os.fspath(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(locked))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match="locked cannot be read: Permission denied"):
        images_in(tmp_path)
