"""Fig. 6 shows the first samples at reverse steps counted from the noise on."""

import pandas as pd

from experiments.sections.fig6_progressive import section


def test_as_many_samples_as_the_study_asks_for_are_shown_at_every_kept_step(measured):
    (figure,) = section(measured).figures
    frame = pd.read_csv(figure.stem.with_suffix(".csv"))
    # t = 20, 10, 1 of a chain of 20 steps
    panels = frame["panel"].drop_duplicates().tolist()
    assert panels == ["reverse step 1", "reverse step 11", "reverse step 20"]
    assert len(frame) == 3 * measured.main.spec.evaluation.n_progressive == 6
    assert figure.caption == (
        "Estimates x0_hat of the first 2 samples over the reverse process; last column: the sample."
    )
