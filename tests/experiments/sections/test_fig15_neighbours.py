"""Fig. 15: samples, their neighbours in pixels and in features, and the memorisation statistic."""

from dataclasses import replace

import pandas as pd
from stored_results import make_log, make_neighbours, store_results

from experiments.sections.fig15_neighbours import MEMORISATION, neighbours_figure, section


def test_samples_stand_beside_their_neighbours(measured):
    found = section(measured)
    frame = pd.read_csv(found.figures[0].stem.with_suffix(".csv"))
    assert frame["panel"].drop_duplicates().tolist() == [
        "sample",
        *(f"{space} {k}" for space in ("pixels", "features") for k in (1, 2, 3)),
    ]
    assert found.figures[0].caption.startswith("Samples and their 3 nearest training images")
    assert found.text == MEMORISATION
    assert found.tables[0].caption == (
        "Are the samples copies? The first 4 samples against 5 test images and all 50 training images, in "
        "pixels and in features (digits-classifier), 95% intervals (DeLong)."
    )


def test_it_is_said_that_mirror_images_were_searched(empty):
    mirrored = replace(make_neighbours(), mirrored=True)
    store_results(empty.main, {"training": make_log(), "neighbours": mirrored})
    assert "all 50 training images and their mirror images, in pixels" in section(empty).tables[0].caption


def test_a_figure_of_its_own_lies_where_it_is_asked_for(tmp_path):
    assert neighbours_figure(make_neighbours(), tmp_path / "nearest").stem == tmp_path / "nearest"
    assert (tmp_path / "nearest.png").exists()
