"""Fig. 10 counts reverse steps from the noise on."""

from dataclasses import replace

import numpy as np
import pandas as pd
from stored_results import main_results, store_results

from ddpm_eval.results.records import QUALITY_OVER_TIME
from experiments.sections.fig10_quality import section


def test_quality_is_drawn_over_the_reverse_steps_taken(measured):
    (figure,) = section(measured).figures
    frame = pd.read_csv(figure.stem.with_suffix(".csv"))
    assert dict(zip(frame["t"], frame["reverse_steps"], strict=True)) == {20: 1, 10: 11, 1: 20}
    assert figure.stem.name == "quality_time"
    assert section(measured).text == ""  # the estimates of the made-up trajectory are all alike
    assert figure.caption.startswith(
        "Estimates x0_hat of the first 70 samples, clipped to [-1, 1], over the reverse"
    )


def test_a_hump_is_explained_by_how_much_the_estimates_differ(empty):
    results = main_results()
    curve, path = results[QUALITY_OVER_TIME], results["progressive"]
    distance = np.array([[20.0, 19, 21], [80, 79, 81], [3, 2, 4]])
    images = np.zeros_like(path.x_0_hat)
    images[:, ::2] = np.array([200, 20, 100])[:, None, None, None, None]  # spreads of 100, 10 and 50 levels
    results[QUALITY_OVER_TIME] = replace(curve, frechet_distance=distance)
    results["progressive"] = replace(path, x_0_hat=images)
    store_results(empty.main, results)
    assert section(empty).text == (
        "The distance is largest after 11 reverse steps, not at the beginning. The first estimates differ as "
        "noise does, by 100 of 255 levels (standard deviation over samples); those after 11 steps are near "
        "the mean image and differ by 10; the samples differ by 50."
    )
