"""Sample sets as files: what is written is read back, by us and in the stated layout."""

import numpy as np
import pytest
from PIL import Image
from stored_results import make_samples

from ddpm_eval.data.image_set import ArrayImages
from ddpm_eval.metrics.distances import PROTOCOLS
from ddpm_eval.metrics.quality import evaluate_quality
from ddpm_eval.results.records import Samples
from ddpm_eval.results.sample_files import export_npz, export_png, load_images
from ddpm_eval.results.store import Store


@pytest.fixture(params=[1, 3])
def images(request):
    return np.random.default_rng(0).integers(0, 256, (12, request.param, 8, 8), dtype=np.uint8)


def everything(images):
    return images.take(np.arange(len(images)))


def test_folders_of_png_are_read_back(images, tmp_path):
    export_png(ArrayImages(images), tmp_path / "png")
    assert len(list((tmp_path / "png").iterdir())) == 12
    np.testing.assert_array_equal(everything(load_images(tmp_path / "png")), images)
    with pytest.raises(ValueError, match="is not empty"):
        export_png(ArrayImages(images), tmp_path / "png")


def test_npz_has_the_layout_of_the_adm_evaluator(images, tmp_path):
    export_npz(ArrayImages(images), tmp_path / "new" / "samples.npz")
    with np.load(tmp_path / "new" / "samples.npz") as file:
        assert file.files == ["arr_0"]
        assert file["arr_0"].shape == (12, 8, 8, images.shape[1])
        np.testing.assert_array_equal(file["arr_0"].transpose(0, 3, 1, 2), images)
    np.testing.assert_array_equal(everything(load_images(tmp_path / "new" / "samples.npz")), images)
    with pytest.raises(ValueError, match="exists already"):
        export_npz(ArrayImages(images), tmp_path / "new" / "samples.npz")
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_npz_has_the_name_that_was_asked_for(images, tmp_path):
    export_npz(ArrayImages(images), tmp_path / "samples")
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]


def test_no_place_to_write_is_a_sentence(images, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write .*samples\.npz \(disk full, or no permission\?\)"):
        export_npz(ArrayImages(images), tmp_path / "file" / "samples.npz")


def test_results_files_are_read(images, tmp_path):
    record = Samples(
        images=images,
        out_of_range=np.zeros(12),
        seconds=np.zeros(12),
        method="ancestral",
        num_steps=10,
        seed=0,
    )
    Store(tmp_path / "results.h5").put("samples", record, key="key", provenance={})
    np.testing.assert_array_equal(everything(load_images(tmp_path / "results.h5")), images)


def test_samples_that_are_not_finite_are_not_read(tmp_path):
    Store(tmp_path / "results.h5").put("samples", make_samples(6, broken=[4]), key="key", provenance={})
    with pytest.raises(ValueError, match="1 samples are not finite, the first is sample 4"):
        load_images(tmp_path / "results.h5")


def test_an_npz_file_with_splits_is_refused(images, tmp_path):
    np.savez(tmp_path / "split.npz", x_train=images, x_test=images)
    with pytest.raises(
        ValueError, match=r"split\.npz has no array x_all \(an unsplit file would have arr_0\)"
    ):
        load_images(tmp_path / "split.npz")


def test_what_holds_no_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no folder or file"):
        load_images(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        load_images(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"notes\.txt is neither a folder of images nor a \.npz or"):
        load_images(tmp_path / "notes.txt")
    np.savez(tmp_path / "floats.npz", arr_0=np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="must be 8-bit images"):
        load_images(tmp_path / "floats.npz")
    np.savez(tmp_path / "none.npz", arr_0=np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="is empty"):
        load_images(tmp_path / "none.npz")
    (tmp_path / "broken.h5").write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match=r"broken\.h5 is damaged, or no results file of this program"):
        load_images(tmp_path / "broken.h5")


def test_mixed_sizes_are_refused(images, tmp_path):
    export_png(ArrayImages(images), tmp_path / "png")
    Image.new("L" if images.shape[1] == 1 else "RGB", (9, 9)).save(tmp_path / "png" / "000012.png")
    with pytest.raises(ValueError, match=r"000012\.png is 9x9 pixels"):
        load_images(tmp_path / "png")


def test_a_folder_is_measured_as_its_array_is(digits, digits_classifier, tmp_path):
    train, _ = digits
    samples = 255 - train.take(np.arange(100))
    export_png(ArrayImages(samples), tmp_path / "png")
    protocol = PROTOCOLS["paper"].model_copy(update={"metrics": ("frechet_distance",)})
    folder, array = (
        evaluate_quality(source, train, digits_classifier, protocol=protocol)
        for source in (load_images(tmp_path / "png"), samples)
    )
    assert folder.frechet_distance == array.frechet_distance
