"""Table 2: what to predict (mu or eps), what to train on (L or the unweighted squared error), which variance.

All six cells always appear, in the paper's order; a cell that diverged or was not measured says so. Columns
that start with ``paper_`` hold published CIFAR-10 values; intervals lie in the columns of `estimate_columns`.

Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, Table 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ddpm_eval.reporting.bound_tables import bound_estimates
from ddpm_eval.reporting.estimate_columns import estimate_cells
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.records import Quality, TrainingLog

PLACES = (
    ("mu", "L", "learned"),
    ("mu", "L", "fixed"),
    ("mu", "MSE", "fixed"),
    ("eps", "L", "learned"),
    ("eps", "L", "fixed"),
    ("eps", "MSE", "fixed"),
)
"""The six cells of Table 2: prediction, objective, variance."""
PLACE_COLUMNS = ("prediction", "objective", "variance")
TABLE2_COLUMNS = (
    *(*PLACE_COLUMNS, "status", "score", "score_std"),
    *("frechet_distance", "frechet_distance_low", "frechet_distance_high"),
    *("bits_per_dim", "bits_per_dim_low", "bits_per_dim_high"),
    *("n_samples", "features", "paper_inception_score", "paper_fid"),
)
"""The columns of the CSV file."""


@dataclass(frozen=True)
class AblationCell:
    """What is known of one cell of Table 2; None where a result does not exist (yet)."""

    prediction: str
    objective: str
    variance: str
    log: TrainingLog | None = None
    quality: Quality | None = None
    terms: BoundTerms | None = None

    @property
    def place(self) -> tuple[str, str, str]:
        """The cell's place in `PLACES`: the paper's names for the specification's."""
        objective = {"vlb": "L", "mse": "MSE"}.get(self.objective, self.objective)
        return self.prediction, objective, "learned" if self.variance.startswith("learned") else "fixed"

    @property
    def status(self) -> str:
        """``diverged`` if training did, ``ok`` if everything was measured, else ``missing``."""
        if self.log is not None and self.log.diverged:
            return "diverged"
        return "missing" if None in (self.log, self.quality, self.terms) else "ok"


def ablation_table(cells: Sequence[AblationCell], paper: pd.DataFrame) -> pd.DataFrame:
    """Return Table 2 with what its figure needs besides: score_low, score_high, reference_distance, n_images.

    Args:
        cells: at most one for each place.
        paper: prediction, objective, variance, inception_score, fid.

    Raises:
        ValueError: if a cell is none of the six, or given twice.
    """
    by_place = {cell.place: cell for cell in cells}
    if len(by_place) < len(cells) or not by_place.keys() <= set(PLACES):
        raise ValueError(f"cells must be distinct and among {PLACES}, not {[cell.place for cell in cells]}")
    frame = pd.DataFrame([_row(by_place.get(place, AblationCell(*place))) for place in PLACES])
    frame = frame.astype({"n_samples": "Int64", "n_images": "Int64"})
    published = paper[[*PLACE_COLUMNS, "inception_score", "fid"]]
    published = published.rename(columns={"inception_score": "paper_inception_score", "fid": "paper_fid"})
    return frame.merge(published, how="left", on=list(PLACE_COLUMNS), validate="one_to_one")


def _row(cell: AblationCell) -> dict[str, object]:
    quality, terms = cell.quality, cell.terms
    total = None if terms is None else bound_estimates(terms)["total"]
    return {
        **dict(zip(PLACE_COLUMNS, cell.place, strict=True)),
        "status": cell.status,
        **estimate_cells("score", None if quality is None else quality.score),
        **estimate_cells("frechet_distance", None if quality is None else quality.frechet_distance),
        "score_std": math.nan if quality is None else quality.score_std,
        "reference_distance": math.nan if quality is None else quality.reference_distance.value,
        **estimate_cells("bits_per_dim", total),
        "n_samples": pd.NA if quality is None else quality.n_samples,
        "features": "" if quality is None else quality.features,
        "n_images": pd.NA if terms is None else len(terms.image_id),
    }
