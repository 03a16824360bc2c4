import io
import multiprocessing
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from ddpm_eval.data import lsun
from ddpm_eval.data.datasets import load
from ddpm_eval.spec import DataSpec


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
    monkeypatch.setattr(lsun, "TEST_EVERY", 4)
    write_lmdb(tmp_path / "cat", images)
    spec = DataSpec(name="lsun:cat", channels=3, side=8)
    train, test = load(spec, "train", tmp_path), load(spec, "test", tmp_path)
    assert test.ids.tolist() == [0, 4, 8, 12, 16, 20]
    assert np.array_equal(test.array, images[test.ids])
    assert np.array_equal(train.array, images[train.ids])
    assert len(train) + len(test) == 23


def test_missing_lsun_is_a_sentence(tmp_path, spec_of):
    with pytest.raises(ValueError, match=r"there is no LSUN database .*church_outdoor_val_lmdb"):
        load(spec_of("lsun:church_outdoor"), "test", tmp_path)


def test_missing_lmdb_package_is_a_sentence(tmp_path, monkeypatch, spec_of):
    monkeypatch.setitem(sys.modules, "lmdb", None)  # makes its import fail
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "data.mdb").write_bytes(b"")
    with pytest.raises(ValueError, match="needs the lmdb package"):
        load(spec_of("lsun:cat"), "test", tmp_path)


def test_damaged_lmdb_is_a_sentence(tmp_path, spec_of):
    pytest.importorskip("lmdb", reason="the lmdb package is not installed")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(ValueError, match="not a readable LMDB database"):
        load(spec_of("lsun:cat"), "test", tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "loop", "device"])
def test_what_is_no_regular_file_is_refused_and_never_opened(tmp_path, special_file, spec_of, kind):
    special_file(tmp_path / "cat" / "data.mdb", kind)
    with pytest.raises(ValueError, match=r"data\.mdb is no regular file, or a link that leads to none"):
        load(spec_of("lsun:cat"), "test", tmp_path)
