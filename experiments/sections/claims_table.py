"""What the paper claims, each sentence checked by the interval of one quantity."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from ddpm_eval.reporting.report_parts import Section
from ddpm_eval.reporting.tables import format_estimate, write_table
from experiments.left_out import left_out
from experiments.paper.claims import CheckedClaim, check_claims
from experiments.study import Study

TITLE = "What the paper claims, checked"
COLUMNS = ("claim", "place", "paper", "ours", "low", "high", "verdict", "condition")
READING_ORDER = ("claim", "verdict", "ours", "published", "condition")
CAPTION = (
    "Sentences of the paper, checked by the 95% interval of the quantity that the condition names: a claim "
    "holds where the whole interval agrees with it, does not hold where the whole interval contradicts it, "
    "and is undecided otherwise. Intervals are over images or samples; of several "
    "trainings the quantity is the mean, and its interval covers what another seed changes; of one it leaves "
    "that out. The paper's numbers are of CIFAR-10."
)


def section(study: Study) -> Section:
    """Render the table of claims."""
    if not any(run.entries() for run in study.every_run):
        return left_out(TITLE, study.main, "train")
    checked = check_claims(study)
    frame = pd.DataFrame([_row(found) for found in checked], columns=COLUMNS)
    shown = frame.assign(
        ours=[format_estimate(*found.ours[:3]) for found in checked],
        published=[f"{found.claim.paper} ({found.claim.place})" for found in checked],
    )
    table = write_table(frame, study.tables / "claims", CAPTION, COLUMNS, shown[list(READING_ORDER)])
    return Section(TITLE, _counts(checked), [table])


def _row(found: CheckedClaim) -> tuple[str | float, ...]:
    claim = found.claim
    return (
        claim.sentence,
        claim.place,
        claim.paper,
        *found.ours[:3],
        found.verdict,
        found.condition,
    )


def _counts(checked: Sequence[CheckedClaim]) -> str:
    counts = Counter(found.verdict for found in checked)
    return (
        f"Of {len(checked)} claims of the paper {counts['holds']} hold here, {counts['does not hold']} do "
        f"not hold, and {counts['undecided']} are undecided."
    )
