"""A result as a group: its digest covers everything, and is the same for equal content."""

import numpy as np
import pytest
from quality_examples import make_quality
from records_for_tests import RECORD_TYPES, example, images

from ddpm_eval.results import hdf5, result_groups
from ddpm_eval.results.records import Quality


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.h5"
    hdf5.create(path)
    with hdf5.editing(path, []) as found:
        yield found


def written(file, name, record, provenance="{}"):
    result_groups.write(file.create_group(name), record, name.rpartition("/")[2], provenance)
    return file[name]


@pytest.mark.parametrize("record_type", RECORD_TYPES)
def test_every_change_of_a_group_changes_its_digest(file, record_type):
    group = written(file, "a/b/1", example(record_type))
    assert result_groups.is_intact(group, checked=False)
    for item in (group, *group.values()):
        for name in item.attrs:
            if name not in ("digest", "DIMENSION_LABELS"):
                before = item.attrs[name]
                item.attrs[name] = "another"
                assert not result_groups.is_intact(group, checked=True), name
                item.attrs[name] = before
    assert result_groups.is_intact(group, checked=False)
    for data in group.values():
        if data.size:
            before = data[...]
            data[...] = np.zeros_like(before) if before.any() else before + 1
            assert not result_groups.is_intact(group, checked=True), data.name
            data[...] = before
    assert result_groups.is_intact(group, checked=False)
    group["one more"] = np.ones(1)
    assert not result_groups.is_intact(group, checked=True)


def test_the_digest_is_of_the_place_too(file):
    one, same, other = (written(file, name, images()) for name in ("a/1", "b/a/1", "a/2"))
    assert len({group.attrs["digest"] for group in (one, same, other)}) == 3


def test_names_and_descriptions(file):
    group = written(file, "a/b/1", images(), '{"created": "now", "weights": "w"}')
    assert result_groups.name_of(group) == "a/b"
    entry = result_groups.describe(group)
    assert (entry.name, entry.key, entry.record) == ("a/b", "1", "ReferenceImages")
    assert entry.scalars == {"name": "digits", "split": "train"}
    assert entry.provenance == {"created": "now", "weights": "w"}


def test_a_number_that_earlier_versions_did_not_store_has_its_earlier_value(file):
    group = written(file, "quality/1", make_quality(n_classifier_test=288))
    assert result_groups.read(group, Quality).n_classifier_test == 288
    del group.attrs["n_classifier_test"], group.attrs["digest"]
    assert result_groups.read(group, Quality).n_classifier_test == 0
    del group.attrs["n_samples"]
    with pytest.raises(KeyError, match="n_samples"):
        result_groups.read(group, Quality)
