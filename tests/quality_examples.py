"""Records of sample quality with given numbers."""

import numpy as np

from ddpm_eval.results.fields import Estimate, fields_of_kind
from ddpm_eval.results.records import Coverage, Quality, QualityCurve


def make_quality(**values):
    """Quality whose numbers are 0.5; estimates are given as (value, low, high)."""
    units = {f.name: f.metadata["unit"] for f in fields_of_kind(Quality, "estimate")}
    numbers = dict.fromkeys(units, (0.5, 0.5, 0.5)) | {k: v for k, v in values.items() if k in units}
    others = {
        "class_counts": np.arange(10),
        "score_splits": np.ones(10),
        "score_std": 0.5,
        "kid_std": 0.5,
        "n_samples": 512,
        "n_reference": 1437,
        "n_test": 360,
        "reference": "train",
        "features": "digits-classifier",
        "weights_digest": "0123456789ab",
        "classifier_test_accuracy": 0.5,
        "n_classifier_test": 360,
        "protocol": "standard",
        "caption": "",
        "caveat": "",
    }
    others |= {name: value for name, value in values.items() if name not in units}
    return Quality(**{name: Estimate(*numbers[name], units[name]) for name in units}, **others)


def make_coverage(**values):
    """Density and coverage of 80 samples, and their classes: twice as many of class 7 as the data has."""
    known = {
        "class_label": np.array([3, 7]),
        "class_counts": np.array([40, 40]),
        "reference_counts": np.array([75, 25]),
        "density": Estimate(0.9, 0.8, 1.0, "1"),
        "coverage": Estimate(0.6, 0.5, 0.7, "1"),
        "neighbours": 5,
        "n_samples": 80,
        "n_reference": 100,
        "reference": "train",
        "features": "digits-classifier",
        "weights_digest": "0123456789ab",
    }
    return Coverage(**{**known, **values})


def make_curve(axis, positions, method="ancestral"):
    """A curve whose values are the positions, with bounds one and two above them."""
    positions = np.array(positions)
    numbers = positions[:, None] + np.arange(3)
    return QualityCurve(
        position=positions,
        seconds_per_image=positions / 1000,
        frechet_distance=numbers,
        score=numbers,
        axis=axis,
        method=method,
        n_samples=70,
        features="digits-classifier",
        weights_digest="",
        caption="",
    )
