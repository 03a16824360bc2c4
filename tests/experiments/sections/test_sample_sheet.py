"""The grid of samples: the first ones, beside real images where these are stored."""

import pandas as pd
from stored_results import main_results, store_results

from experiments.sections.sample_sheet import SHOWN, section


def test_the_first_samples_are_shown_beside_real_images(measured):
    found = section(measured)
    (figure,) = found.figures
    panels = pd.read_csv(figure.stem.with_suffix(".csv"))["panel"].value_counts().to_dict()
    assert panels == {"samples of eps-mse-fixed-large": SHOWN, "digits, train images": 3}
    assert figure.stem == measured.figures / "samples"
    assert figure.caption == (
        "The first 64 samples (not selected) of eps-mse-fixed-large on digits, ancestral sampling, 20 steps, "
        "beside real images."
    )


def test_samples_are_shown_without_real_images(empty):
    results = main_results()
    store_results(empty.main, {name: results[name] for name in ("training", "samples")})
    (figure,) = section(empty).figures
    assert pd.read_csv(figure.stem.with_suffix(".csv"))["panel"].nunique() == 1
