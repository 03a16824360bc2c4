"""Fig. 10 counts reverse steps from the noise on."""

import pandas as pd

from experiments.sections.fig10_quality import section


def test_quality_is_drawn_over_the_reverse_steps_taken(measured):
    (figure,) = section(measured).figures
    frame = pd.read_csv(figure.stem.with_suffix(".csv"))
    assert dict(zip(frame["t"], frame["reverse_steps"], strict=True)) == {20: 1, 10: 11, 1: 20}
    assert figure.stem.name == "quality_time"
    assert figure.caption.startswith(
        "Estimates x0_hat of the first 70 samples, clipped to [-1, 1], over the reverse"
    )
