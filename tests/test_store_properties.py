"""Random records, names and keys, and random histories of a results file: never a wrong number."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from records_for_tests import RECORD_TYPES, assert_equal, example, images

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.fields import Estimate, array_fields, fields_of_kind
from ddpm_eval.results.records import ReferenceImages
from ddpm_eval.results.store import Store

NUMBERS = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(),
    bool: st.booleans(),
    str: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
}
WORDS = st.sampled_from(["", ".", "..", "/", "a", "a/b", "/a", "a/", "é", "<b>", "$x^$", "x" * 300, "a\nb"])


@st.composite
def records(draw):
    """Return a record of any type: arrays of any length and values, texts and numbers of any kind."""
    kind = draw(st.sampled_from(RECORD_TYPES))
    lengths = {"interval": 3}
    values = {}
    for field in array_fields(kind):
        shape = tuple(lengths.setdefault(name, draw(st.integers(0, 3))) for name in field.metadata["dims"])
        dtype = draw(st.sampled_from([np.uint8, np.int64, np.float32, np.float64]))
        values[field.name] = draw(arrays.arrays(dtype, shape))
    for field in fields_of_kind(kind, "estimate"):
        values[field.name] = Estimate(*(draw(st.floats()) for _ in range(3)), field.metadata["unit"])
    for field in (*fields_of_kind(kind, "number"), *fields_of_kind(kind, "text")):
        values[field.name] = draw(NUMBERS[field.type])
    for field in fields_of_kind(kind, "protocol"):
        values[field.name] = draw(st.sampled_from(list(PROTOCOLS.values())))
    return kind(**values)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(record=records(), name=WORDS, key=WORDS)
def test_what_is_read_is_what_was_written_or_it_is_refused(record, name, key):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results.h5")
        store.put("other", images(2), key="k", provenance={})
        try:
            store.put(name, record, key=key, provenance={})
        except ValueError as refusal:
            assert "\n" not in str(refusal)
        else:
            assert_equal(store.get(name, type(record), key), record)
            assert store.has(name, key)
        assert_equal(store.get("other", ReferenceImages, "k"), images(2))  # whatever came beside it


CHANGES = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("ab"), st.sampled_from("12"), st.integers(0, 9)),
    st.tuples(st.just("damage"), st.floats(0, 1, exclude_max=True), st.integers(0, 7)),
)
HISTORIES = st.tuples(st.lists(CHANGES, min_size=2, max_size=6), st.booleans(), st.lists(CHANGES, max_size=3))


class History:
    """A results file, and what was last stored in it under each name and key."""

    def __init__(self, path):
        self.store = Store(path)
        self.known = {}
        self.damaged = False

    def apply(self, change):
        kind, *arguments = change
        getattr(self, kind)(*arguments)
        self.check()

    def put(self, name, key, seed):
        try:
            self.store.put(name, images(20, seed), key=key, provenance={})
        except ValueError:
            assert self.damaged, "a whole file takes results"
        else:
            self.known[name, key] = images(20, seed)

    def damage(self, place, bit):
        """Flip a bit of the file, which is then another file."""
        if self.store.path.exists():
            content = bytearray(self.store.path.read_bytes())
            content[int(place * len(content))] ^= 1 << bit
            self.store.path.unlink()
            self.store.path.write_bytes(content)
            self.damaged = True

    def repair(self):
        """Verify and repair; of a whole file all is kept."""
        if not self.store.path.exists():
            return
        intact = self.store.intact()
        kept = self.store.drop_damaged()
        assert set(kept) == {name for name, whole in intact.items() if whole}
        assert self.damaged or len(kept) == len(self.known)
        self.known = {key: record for key, record in self.known.items() if "/".join(key) in kept}
        self.damaged = False
        self.check()

    def check(self):
        """Whatever is read is what was stored last; of a whole file everything is."""
        for (name, key), record in self.known.items():
            try:
                found = self.store.get(name, ReferenceImages, key)
            except ValueError as refusal:
                assert self.damaged, refusal
            else:
                assert_equal(found, record)


@pytest.mark.slow
@settings(max_examples=4, deadline=None, derandomize=True, database=None)
@given(HISTORIES)
def test_no_history_of_a_results_file_leads_to_a_wrong_number(history):
    before, repaired, after = history
    with tempfile.TemporaryDirectory() as folder:
        file = History(Path(folder) / "results.h5")
        for change in before:
            file.apply(change)
        if repaired:
            file.repair()
        for change in after:
            file.apply(change)
        file.repair()


def test_every_record_type_can_be_drawn():
    """The strategy knows the kinds of all fields."""
    for kind in RECORD_TYPES:
        known = {field.name for field in dataclasses.fields(example(kind))}
        kinds = ("array", "estimate", "number", "text", "protocol")
        assert known == {field.name for each in kinds for field in fields_of_kind(kind, each)}
