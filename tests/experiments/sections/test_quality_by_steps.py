"""Quality against the number of sampling steps, of each sampler that was measured."""

import pandas as pd
from quality_examples import make_curve
from stored_results import make_log, store_results

from ddpm_eval.results.records import QUALITY_OVER_STEPS
from experiments.sections.quality_by_steps import section


def test_both_samplers_are_compared(measured):
    found = section(measured)
    table = pd.read_csv(measured.tables / "steps.csv")
    assert list(zip(table["method"], table["steps"], strict=True)) == [
        *[("ancestral", 10), ("ancestral", 20), ("ddim", 10)]
    ]
    assert found.tables[0].caption.endswith("Time per image is measured on a CPU.")


def test_one_sampler_alone_is_shown_with_the_device_of_its_samples(empty):
    curve = {QUALITY_OVER_STEPS["ddim"]: make_curve("steps", [10], "ddim")}
    store_results(empty.main, {"training": make_log(), **curve}, device="a GPU")
    assert section(empty).tables[0].caption.endswith("Time per image is measured on a GPU.")
