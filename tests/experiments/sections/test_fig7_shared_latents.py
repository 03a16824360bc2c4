"""Fig. 7 shows the shared x_t of each chain before the samples that were drawn from it."""

import numpy as np
import pandas as pd
from stored_results import images

from ddpm_eval.results.records import SharedLatents
from experiments.sections.fig7_shared_latents import section, shared_latents_figure


def test_each_time_has_its_latent_and_its_samples(measured):
    (figure,) = section(measured).figures
    assert figure.of_images
    frame = pd.read_csv(figure.stem.with_suffix(".csv"))
    panels = frame["panel"].drop_duplicates().tolist()
    assert panels == [
        *("x_20", "x_20, sample 1", "x_20, sample 2"),
        *("x_10", "x_10, sample 1", "x_10, sample 2"),
    ]
    assert len(frame) == 6 * 3  # chains
    assert "the first 3 samples, not selected" in figure.caption
    assert "and 2 samples that were drawn from it; the samples of a row have the same noise" in figure.caption


def test_every_image_lies_in_the_row_of_its_chain(tmp_path):
    levels = np.arange(12, dtype=np.uint8).reshape(2, 3, 2, 1, 1, 1)
    found = SharedLatents(
        t=np.array([20, 10]),
        x_t=100 + 0 * images(2, 3),
        images=levels + 0 * images(2, 3, 2),
    )
    frame = pd.read_csv(shared_latents_figure(found, tmp_path / "shared").stem.with_suffix(".csv"))
    second = frame[frame["panel"] == "x_10, sample 2"]
    assert second["0_0_0"].tolist() == [7, 9, 11]
