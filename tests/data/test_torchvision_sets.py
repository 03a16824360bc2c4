import pickle
import urllib.error

import numpy as np
import pytest
from PIL import Image

from ddpm_eval.data.datasets import NATIVE, load
from ddpm_eval.data.torchvision_compatibility import import_torchvision
from ddpm_eval.data.torchvision_sets import TORCHVISION
from ddpm_eval.spec import DataSpec


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_a_named_set_is_read_from_its_npz_in_the_root(tmp_path, name):
    channels, side = NATIVE[name]
    x = np.random.default_rng(0).integers(0, 256, (5, channels, side, side), np.uint8)
    np.savez(tmp_path / f"{name}.npz", x_test=x, y_test=np.arange(5), inexact_test=[2])
    found = load(DataSpec(name=name, channels=channels, side=side), "test", tmp_path)
    assert np.array_equal(found.array, x)
    assert (found.name, found.labels.tolist(), found.inexact.tolist()) == (name, [*range(5)], [2])
    np.savez(tmp_path / f"{name}.npz", x_test=x[:, :, 1:, 1:])
    with pytest.raises(ValueError, match=f"images of {name} have {channels} channels and {side - 1} pixels"):
        load(DataSpec(name=name, channels=channels, side=side), "test", tmp_path)


def test_real_mnist_through_torchvision(mnist_root, spec_of):
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
def test_cifar_in_its_official_layout(tmp_path, cifar10_npz, monkeypatch, name, spec_of):
    reader = getattr(import_torchvision().datasets, TORCHVISION[name][0])
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


def test_celeba_is_cropped_to_its_centre(tmp_path, monkeypatch, spec_of):
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
def test_failed_download_says_what_to_put_where(tmp_path, monkeypatch, name, spec_of):
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
    assert (f"{name}.npz" in message) == (name != "celeba")  # of CelebA none is read
    assert TORCHVISION[name][1] in message
    assert "\n" not in message


def test_truncated_mnist_is_a_sentence(tmp_path, spec_of):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(ValueError, match=f"mnist in {tmp_path} cannot be read"):
        load(spec_of("mnist"), "train", tmp_path)


SPECIAL_FILES = [
    ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
    ("fashion-mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz"),
    ("cifar10", "cifar-10-batches-py/data_batch_1"),
    ("cifar10", "cifar10.npz"),
    ("cifar100", "cifar-100-python/train"),
    ("celeba", "celeba/list_attr_celeba.txt"),
]


@pytest.mark.parametrize("kind", ["pipe", "loop", "device"])
@pytest.mark.parametrize(("name", "file"), SPECIAL_FILES, ids=lambda value: value.rpartition("/")[2])
def test_what_is_no_regular_file_is_refused_and_never_opened(
    tmp_path, special_file, spec_of, name, file, kind
):
    special_file(tmp_path / file, kind)
    with pytest.raises(ValueError, match=rf"{file} is no regular file, or a link that leads to none"):
        load(spec_of(name), "train", tmp_path)


def test_a_pipe_among_the_faces_is_refused(tmp_path, special_file, monkeypatch, spec_of):
    class Faces:
        filename = ("000001.jpg",)

        def __init__(self, *arguments, **options):
            pass

    monkeypatch.setattr(import_torchvision().datasets, "CelebA", Faces)
    special_file(tmp_path / "celeba" / "img_align_celeba" / "000001.jpg", "pipe")
    with pytest.raises(ValueError, match=r"000001\.jpg is no regular file"):
        load(spec_of("celeba"), "train", tmp_path)
