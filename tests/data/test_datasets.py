import io
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
import urllib.error
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_eval.data import datasets
from ddpm_eval.data.datasets import NATIVE, import_torchvision, inspect, load, to_model_range, to_pixels
from ddpm_eval.spec import DataSpec

DIGITS = DataSpec(name="digits", channels=1, side=8)


def spec_of(name, root=None):
    channels, side = inspect(str(name), root)
    return DataSpec(name=str(name), channels=channels, side=side)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (23, 3, 8, 8), np.uint8)


@pytest.fixture
def streamed(monkeypatch):
    """No set is small enough for memory."""
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 0)


def fill(folder, images, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(folder / f"{i:03}{suffix}")
    return folder


# Pixels and the model's range


def test_model_range_is_correctly_rounded_at_every_level():
    levels = torch.arange(256, dtype=torch.uint8)
    exact = [
        np.float32(float(Fraction(2 * u - 255, 255))) for u in range(256)
    ]  # the step through double changes nothing here
    assert to_model_range(levels).tolist() == [float(x) for x in exact]


def test_pixels_invert_the_model_range_and_survive_noise_below_half_a_level():
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_model_range(levels)
    assert torch.equal(to_pixels(x), levels)
    for shift in (-0.99 / 255, 0.99 / 255):  # half a level is 1 / 255 in the model's range
        assert torch.equal(to_pixels(x + shift), levels)
    assert torch.equal(to_pixels(x[:-1] + 1.01 / 255), levels[1:])


def test_pixels_clip_and_refuse_nan():
    assert to_pixels(torch.tensor([-9.0, -1.0, 1.0, float("inf")])).tolist() == [0, 0, 255, 255]
    with pytest.raises(ValueError, match="1 of 2 elements are NaN"):
        to_pixels(torch.tensor([0.0, float("nan")]))


def test_only_8_bit_images_are_mapped():
    with pytest.raises(ValueError, match=r"torch\.float32"):
        to_model_range(torch.zeros(3))


# The embedded digits


def test_digits_split(digits):
    train, test = digits
    assert (len(train), len(test)) == (1437, 360)
    assert (test.ids % 5 == 0).all()
    assert sorted([*train.ids, *test.ids]) == list(range(1797))


def test_digits_are_scikit_learns_levels(digits):
    from sklearn.datasets import load_digits

    original = load_digits()
    for split in digits:
        # multiples of 255 / 16 rounded: dividing back gives the original 17 levels exactly
        levels = np.round(split.array[:, 0] * (16 / 255))
        assert np.array_equal(levels, original.images[split.ids])
        assert np.array_equal(split.labels, original.target[split.ids])
        assert (split.array.min(), split.array.max()) == (0, 255)


def test_take_uses_positions(digits):
    index = np.array([3, 0, 3])
    assert np.array_equal(digits[1].take(index), digits[1].array[[3, 0, 3]])


def test_digest_identifies_the_split(digits):
    train, test = digits
    assert train.digest == load(DIGITS, "train").digest != test.digest


def test_wrong_shape_split_and_name_are_sentences():
    with pytest.raises(
        ValueError, match=r"1 channels and 8 pixels .* asks for 3 and 8 \(set datasets.channels=1"
    ):
        load(DIGITS.model_copy(update={"channels": 3}), "train")
    with pytest.raises(ValueError, match="no split 'valid'"):
        load(DIGITS, "valid")
    with pytest.raises(ValueError, match="splits train and test"):
        load(DIGITS, "all")
    with pytest.raises(ValueError, match=r"no data set 'digitz' .*did you mean digits\?"):
        load(DIGITS.model_copy(update={"name": "digitz"}), "train")


@pytest.mark.parametrize("name", ["folder:", "folder@0:x", "folder@x:y", "npz:", "lsun:dog", ""])
def test_half_a_name_is_no_data_set(name):
    with pytest.raises(ValueError, match="there is no data set"):
        inspect(name)


# Files of arrays


@pytest.mark.slow
def test_real_cifar10(cifar10_npz):
    spec = spec_of(f"npz:{cifar10_npz}")
    train, test = load(spec, "train"), load(spec, "test")
    assert (len(train), len(test), spec.channels, spec.side) == (50_000, 10_000, 3, 32)
    assert (len(train.inexact), len(test.inexact)) == (72, 20)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    # The widely published channel means of the training images; the channels' order and layout show in them
    means = train.array.mean(axis=(0, 2, 3)) / 255
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)


def test_npz_layouts_are_one(tmp_path, images):
    digests = set()
    for layout, x in {"nchw": images, "nhwc": images.transpose(0, 2, 3, 1)}.items():
        np.savez(
            tmp_path / f"{layout}.npz", x_train=x, y_train=np.arange(23, dtype=np.uint8), inexact_train=[4, 7]
        )
        found = load(spec_of(f"npz:{tmp_path / layout}.npz"), "train")
        assert np.array_equal(found.array, images)
        assert (found.labels.tolist(), found.inexact.tolist(), found.labels.dtype) == (
            [*range(23)],
            [4, 7],
            np.int64,
        )
        digests.add(found.digest)
    assert len(digests) == 1
    np.savez(tmp_path / "grey.npz", x_test=images[:, 0])
    grey = load(spec_of(f"npz:{tmp_path / 'grey.npz'}"), "test")
    assert np.array_equal(grey.array, images[:, :1])
    assert grey.labels is None
    assert len(grey.inexact) == 0


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_a_named_set_is_read_from_its_npz_in_the_root(tmp_path, name):
    channels, side = datasets.NATIVE[name]
    x = np.random.default_rng(0).integers(0, 256, (5, channels, side, side), np.uint8)
    np.savez(tmp_path / f"{name}.npz", x_test=x, y_test=np.arange(5), inexact_test=[2])
    found = load(DataSpec(name=name, channels=channels, side=side), "test", tmp_path)
    assert np.array_equal(found.array, x)
    assert (found.name, found.labels.tolist(), found.inexact.tolist()) == (name, [*range(5)], [2])
    np.savez(tmp_path / f"{name}.npz", x_test=x[:, :, 1:, 1:])
    with pytest.raises(ValueError, match=f"images of {name} have {channels} channels and {side - 1} pixels"):
        load(DataSpec(name=name, channels=channels, side=side), "test", tmp_path)


def test_digest_changes_with_any_content(tmp_path, images):
    other = images.copy()
    other[5, 0, 0, 0] ^= 1
    y = np.zeros(23, int)
    variants = [
        {"x_train": images},
        {"x_train": other},
        {"x_train": images, "y_train": y},
        {"x_train": images, "y_train": y + 1},
    ]
    digests = set()
    for i, arrays in enumerate(variants):
        np.savez(tmp_path / f"{i}.npz", **arrays)
        digests.add(load(spec_of(f"npz:{tmp_path / str(i)}.npz"), "train").digest)
    assert len(digests) == len(variants)


def test_unsplit_npz_makes_every_tenth_a_test_image(tmp_path, images):
    np.savez(tmp_path / "a.npz", arr_0=images.transpose(0, 2, 3, 1), arr_1=np.arange(23))
    spec = spec_of(f"npz:{tmp_path / 'a.npz'}")
    test, train, both = (load(spec, split) for split in ("test", "train", "all"))
    assert test.ids.tolist() == test.labels.tolist() == [0, 10, 20]
    assert sorted([*test.ids, *train.ids]) == both.ids.tolist() == [*range(23)]
    for part in (test, train, both):
        assert np.array_equal(part.array, images[part.ids])


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x_test": np.zeros((4, 3, 8, 8), np.uint8)}, "has no array x_train"),
        ({"x_train": np.zeros((4, 3, 8, 8), np.float32)}, "8-bit images .uint8., but are float32"),
        ({"x_train": np.zeros((4, 3, 8, 9), np.uint8)}, r"has shape \(4, 3, 8, 9\)"),
        ({"x_train": np.zeros((4, 4, 8, 8), np.uint8)}, r"has shape \(4, 4, 8, 8\)"),
        ({"x_train": np.zeros((0, 3, 8, 8), np.uint8)}, "is empty"),
        (
            {"x_train": np.zeros((4, 3, 8, 8), np.uint8), "y_train": np.zeros(3, int)},
            "are 3, but there are 4 images",
        ),
        ({"x_train": np.zeros((4, 3, 8, 8), np.uint8), "y_train": np.zeros(4)}, "must be a list of integers"),
        (
            {"x_train": np.zeros((4, 3, 8, 8), np.uint8), "inexact_train": [4]},
            "are ids 4 to 4, but there are 4 images",
        ),
        ({"x_train": np.zeros((4, 1, 8, 8), np.uint8)}, "have 1 channels"),
        ({"x_train": np.array([{}])}, "not a readable npz file of plain arrays"),
        ({"arr_0": np.zeros((1, 3, 8, 8), np.uint8)}, "leave none for the train split"),
    ],
)
def test_unusable_npz_is_a_sentence(tmp_path, arrays, sentence):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=sentence):
        load(DataSpec(name=f"npz:{tmp_path / 'a.npz'}", channels=3, side=8), "train")


def test_damaged_npz_is_a_sentence(tmp_path, images):
    np.savez(tmp_path / "a.npz", x_train=images)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "b.npy", images)
    for name, sentence in {
        "a.npz": "not a readable npz",
        "b.npy": "one unnamed array",
        "c.npz": "there is no file",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            inspect(f"npz:{tmp_path / name}")
    np.savez(tmp_path / "d.npz", images=images)
    with pytest.raises(ValueError, match="holds no images"):
        inspect(f"npz:{tmp_path / 'd.npz'}")


# Folders


def test_folder_without_splits_makes_every_tenth_a_test_image(tmp_path, images):
    spec = spec_of(f"folder:{fill(tmp_path, images)}")
    test, train, both = (load(spec, split) for split in ("test", "train", "all"))
    assert test.ids.tolist() == [0, 10, 20]
    assert sorted([*test.ids, *train.ids]) == both.ids.tolist() == [*range(23)]
    for part in (test, train, both):
        assert np.array_equal(part.array, images[part.ids])


def test_folder_with_splits(tmp_path, images):
    fill(tmp_path / "train" / "cats", images[:4])
    fill(tmp_path / "train" / "dogs", images[4:9])
    spec = spec_of(f"folder:{tmp_path}")
    assert np.array_equal(load(spec, "train").array, images[:9])
    with pytest.raises(ValueError, match=f"there is no folder {tmp_path / 'test'}"):
        load(spec, "test")
    fill(tmp_path / "test", images[9:])
    assert np.array_equal(load(spec, "test").array, images[9:])
    assert load(spec, "test").ids.tolist() == [*range(14)]


def test_streamed_folder_holds_the_same_images(tmp_path, images, monkeypatch):
    spec = spec_of(f"folder:{fill(tmp_path, images)}")
    held = load(spec, "train")
    monkeypatch.setattr(
        datasets, "MEMORY_LIMIT_BYTES", 20 * 3 * 8 * 8 - 1
    )  # one byte less than the 20 training images
    streamed = load(spec, "train")
    assert (held.in_memory, streamed.in_memory) == (True, False)
    assert load(spec, "test").in_memory
    index = np.array([7, 0, 19, 7])
    for found in (streamed, pickle.loads(pickle.dumps(streamed))):  # as a spawned worker receives it
        assert np.array_equal(found.take(index), held.take(index))
    with pytest.raises(ValueError, match="20 images are not held in memory"):
        _ = streamed.array


def test_streamed_digest_changes_with_names_and_sizes(tmp_path, images, streamed):
    spec = spec_of(f"folder:{fill(tmp_path, images)}")
    first = load(spec, "all").digest
    assert first == load(spec, "all").digest
    (tmp_path / "022.png").rename(tmp_path / "023.png")
    second = load(spec, "all").digest
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "023.png")
    assert len({first, second, load(spec, "all").digest}) == 3


def test_streamed_folder_is_checked_before_it_is_used(tmp_path, images, streamed):
    spec = spec_of(f"folder:{fill(tmp_path, images)}")
    (tmp_path / "003.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"1 of 20 images cannot be used: .*003\.png"):
        load(spec, "train")
    broken = fill(tmp_path, images) / "001.png"
    found = load(spec, "train")
    broken.write_bytes(broken.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"001\.png cannot be decoded"):
        found.take(np.array([0]))


def test_folder_of_other_sizes_needs_an_explicit_resize(tmp_path, images):
    fill(tmp_path, images)
    Image.fromarray(np.full((20, 31, 3), 77, np.uint8)).save(tmp_path / "005.png")
    with pytest.raises(
        ValueError, match=r"1 of 20 .*005.png is 31x20 pixels, but .* 8x8 \(folder@8:DIR crops and resizes\)"
    ):
        load(spec_of(f"folder:{tmp_path}"), "train")
    spec = spec_of(f"folder@4:{tmp_path}")
    assert (spec.channels, spec.side) == (3, 4)
    found = load(spec, "all")
    assert found.array.shape == (23, 3, 4, 4)
    assert (found.array[5] == 77).all()
    with pytest.raises(ValueError, match="resizes to 4 pixels, but the run asks for 8"):
        load(spec.model_copy(update={"side": 8}), "all")


def test_grey_folder_is_not_coloured_unasked(tmp_path, images):
    spec = spec_of(f"folder:{fill(tmp_path, images[:, :1])}")
    assert spec.channels == 1
    with pytest.raises(
        ValueError, match=r"3 of 3 .*has 1 channels, but the run asks for 3 \(set datasets.channels=1"
    ):
        load(spec.model_copy(update={"channels": 3}), "test")


def test_unusable_folders_are_sentences(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        inspect(f"folder:{tmp_path / 'absent'}")
    Image.new("RGB", (8, 5)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="8x5 pixels, but images must be square"):
        inspect(f"folder:{tmp_path}")
    Image.new("P", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="mode P"):
        inspect(f"folder:{tmp_path}")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="1 images leave none for the train split"):
        load(spec_of(f"folder:{tmp_path}"), "train")


# Through torchvision


def test_real_mnist_through_torchvision(mnist_root):
    spec = spec_of("mnist")
    for split, stem in {"train": "train", "test": "t10k"}.items():
        found = load(spec, split, mnist_root)
        raw = mnist_root / "MNIST" / "raw"
        # The official format: big-endian headers of 16 and 8 bytes, then the levels row by row
        pixels = np.frombuffer((raw / f"{stem}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
        labels = np.frombuffer((raw / f"{stem}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
        assert np.array_equal(found.array, pixels.reshape(-1, 1, 28, 28))
        assert np.array_equal(found.labels, labels)
        assert found.ids.tolist() == [*range(len(labels))]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_in_its_official_layout(tmp_path, cifar10_npz, monkeypatch, name):
    reader = getattr(import_torchvision().datasets, datasets.TORCHVISION[name][0])
    with np.load(cifar10_npz) as file:
        images, labels = file["x_test"][:60], file["y_test"][:60]
    folder = tmp_path / reader.base_folder
    folder.mkdir()
    key = "labels" if name == "cifar10" else "fine_labels"
    files = [entry[0] for entry in reader.train_list + reader.test_list]
    batches = np.array_split(np.arange(60), len(files))
    for file, rows in zip(files, batches, strict=True):
        batch = {"data": images[rows].reshape(len(rows), -1), key: labels[rows].tolist()}
        (folder / file).write_bytes(pickle.dumps(batch))
    (folder / reader.meta["filename"]).write_bytes(pickle.dumps({reader.meta["key"]: []}))
    # These batches are excerpts, so the official checksums cannot hold
    monkeypatch.setattr(reader, "train_list", [[file, None] for file in files[:-1]])
    monkeypatch.setattr(reader, "test_list", [[files[-1], None]])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": None})
    train, test = load(spec_of(name), "train", tmp_path), load(spec_of(name), "test", tmp_path)
    assert np.array_equal(np.concatenate([train.array, test.array]), images)
    assert np.array_equal(np.concatenate([train.labels, test.labels]), labels)


def test_celeba_is_cropped_to_its_centre(tmp_path, monkeypatch):
    reader = import_torchvision().datasets.CelebA
    faces = np.random.default_rng(0).integers(0, 256, (5, 218, 178, 3), np.uint8)
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06}.png" for i in range(5)]
    for name, face in zip(names, faces, strict=True):
        Image.fromarray(face).save(folder / "img_align_celeba" / name)
    for table in (
        "list_attr_celeba",
        "identity_CelebA",
        "list_bbox_celeba",
        "list_landmarks_align_celeba",
        "list_eval_partition",
    ):
        head = "5\na b\n" if table.startswith("list_") and "eval" not in table else ""
        partition = [0, 0, 1, 2, 2]  # train, train, validation, test, test
        (folder / f"{table}.txt").write_text(
            head + "".join(f"{n} {p}\n" for n, p in zip(names, partition, strict=True))
        )
    monkeypatch.setattr(reader, "file_list", [(file, None, name) for file, _, name in reader.file_list])
    test = load(DataSpec(name="celeba", channels=3, side=178), "test", tmp_path)
    assert test.ids.tolist() == [4, 5]
    assert np.array_equal(test.array, faces[3:, 20:198].transpose(0, 3, 1, 2))
    assert load(spec_of("celeba"), "train", tmp_path).array.shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match="asks for 1"):
        load(DataSpec(name="celeba", channels=1, side=64), "test", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "celeba"])
def test_failed_download_says_what_to_put_where(tmp_path, monkeypatch, name):
    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    import_torchvision()
    for module in ("mnist", "cifar"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", offline)
    monkeypatch.setattr("torchvision.datasets.celeba.download_file_from_google_drive", offline)
    with pytest.raises(
        ValueError, match=f"^{name} is not in {tmp_path} and could not be downloaded"
    ) as caught:
        load(spec_of(name), "train", tmp_path)
    message = str(caught.value)
    assert "no route to host" in message
    assert datasets.TORCHVISION[name][1] in message
    assert "\n" not in message


def test_truncated_mnist_is_a_sentence(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(ValueError, match=f"mnist in {tmp_path} cannot be read"):
        load(spec_of("mnist"), "train", tmp_path)


# The import of torchvision, each in a process of its own

SHIM = """
    import sys
    import torch
    from ddpm_eval.data import datasets
    assert not any(name.startswith("torchvision") for name in sys.modules), "torchvision is imported too early"
"""


def run(code, path=""):
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        f"import sys; sys.path.insert(0, {str(path)!r})\n" + textwrap.dedent(SHIM + code),
    ]
    subprocess.run(command, check=True, timeout=120)


def package(tmp_path, body):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(textwrap.dedent(body))
    (tmp_path / "torchvision" / "datasets.py").write_text("")


@pytest.mark.slow
def test_torchvision_and_torch_fidelity_can_be_imported():
    run("""
    torchvision = datasets.import_torchvision()
    assert datasets.import_torchvision() is torchvision
    import torch_fidelity
    torchvision.datasets.MNIST, torchvision.transforms.Resize
    """)


@pytest.mark.slow
def test_missing_operators_are_declared_only_when_they_are_missing(tmp_path):
    package(
        tmp_path,
        """
        import torch
        for name in ("nms", "qnms"):
            @torch.library.register_fake(f"torchvision::{name}")
            def fake(dets, scores, iou_threshold): ...
        """,
    )
    run(
        """
    try:
        import torchvision
    except RuntimeError as error:
        assert "operator torchvision::nms does not exist" in str(error)
    else:
        raise AssertionError("the imitation of a wheel that does not fit is imported as it is")
    datasets.import_torchvision()
    datasets.import_torchvision()
    assert len(datasets._declared) == 1
    """,
        tmp_path,
    )


@pytest.mark.slow
def test_fitting_torchvision_is_left_alone_and_a_broken_one_is_a_sentence(tmp_path):
    package(
        tmp_path,
        """
        import torch
        library = torch.library.Library("torchvision", "DEF")  # fails if anything was declared before
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        """,
    )
    (tmp_path / "broken").mkdir()
    package(tmp_path / "broken", "raise RuntimeError('compiled with another CUDA')")
    run(
        f"""
    datasets.import_torchvision()
    assert datasets._declared == []
    del sys.modules["torchvision"]
    sys.path.insert(0, {str(tmp_path / "broken")!r})
    try:
        datasets.import_torchvision()
    except ValueError as error:
        assert "compiled with another CUDA (install" in str(error)
    else:
        raise AssertionError("a broken torchvision is imported")
    """,
        tmp_path,
    )


# LSUN


def write_lmdb(path, images):
    lmdb = pytest.importorskip("lmdb", reason="the lmdb package is not installed")
    path.mkdir(parents=True)
    database = lmdb.open(str(path), map_size=2**24)
    with database.begin(write=True) as transaction:
        for i, image in enumerate(images):
            encoded = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(encoded, format="webp", lossless=True)
            transaction.put(f"{i:040x}".encode(), encoded.getvalue())
    database.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # loaders fork all the same
def test_lsun_scenes_use_their_official_splits(tmp_path, images, streamed):
    write_lmdb(tmp_path / "bedroom_train_lmdb", images[:20])
    write_lmdb(tmp_path / "bedroom_val_lmdb", images[20:])
    spec = DataSpec(name="lsun:bedroom", channels=3, side=8)
    train, test = load(spec, "train", tmp_path), load(spec, "test", tmp_path)
    assert (len(train), len(test), train.in_memory) == (20, 3, False)
    assert np.array_equal(train.take(np.array([19, 2])), images[[19, 2]])
    assert np.array_equal(test.take(np.arange(3)), images[20:])
    assert np.array_equal(pickle.loads(pickle.dumps(test)).take(np.array([1])), images[[21]])
    with multiprocessing.get_context("fork").Pool(
        1
    ) as pool:  # a loader's worker opens the database for itself
        assert np.array_equal(pool.apply(train.take, (np.array([5]),)), images[[5]])


def test_lsun_cat_has_no_official_split(tmp_path, images, monkeypatch):
    monkeypatch.setattr(datasets, "CAT_TEST_EVERY", 4)
    write_lmdb(tmp_path / "cat", images)
    spec = DataSpec(name="lsun:cat", channels=3, side=8)
    train, test = load(spec, "train", tmp_path), load(spec, "test", tmp_path)
    assert test.ids.tolist() == [0, 4, 8, 12, 16, 20]
    assert np.array_equal(test.array, images[test.ids])
    assert np.array_equal(train.array, images[train.ids])
    assert len(train) + len(test) == 23


def test_missing_lsun_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"there is no LSUN database .*church_outdoor_val_lmdb"):
        load(spec_of("lsun:church_outdoor"), "test", tmp_path)


def test_missing_lmdb_package_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)  # makes its import fail
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "data.mdb").write_bytes(b"")
    with pytest.raises(ValueError, match="needs the lmdb package"):
        load(spec_of("lsun:cat"), "test", tmp_path)


def test_damaged_lmdb_is_a_sentence(tmp_path):
    pytest.importorskip("lmdb", reason="the lmdb package is not installed")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(ValueError, match="not a readable LMDB database"):
        load(spec_of("lsun:cat"), "test", tmp_path)


def test_every_name_has_a_reader():
    assert {datasets.kind(name) for name in NATIVE} == {"digits", "torchvision", "celeba", "lsun"}
    assert {name for name in NATIVE if datasets.kind(name) in ("torchvision", "celeba")} == set(
        datasets.TORCHVISION
    )
