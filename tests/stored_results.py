"""Results of a small run for tests of what is made of them: one of each kind, with made-up numbers."""

import numpy as np
from quality_examples import make_coverage, make_curve, make_quality
from simulated_bounds import make_terms, realistic, subsample

from ddpm_eval.protocol import CHAIN_PROTOCOLS, CHAINS, COMPARED, PROTOCOLS
from ddpm_eval.results.bound_terms import BOUND_HISTORY, BoundHistory, bound_name
from ddpm_eval.results.fields import Estimate
from ddpm_eval.results.records import (
    QUALITY_OVER_STEPS,
    QUALITY_OVER_TIME,
    Baseline,
    Interpolations,
    Neighbours,
    ReferenceImages,
    Samples,
    ScheduleTables,
    SharedLatents,
    SimpleCodes,
    TrainingLog,
    Trajectory,
)
from ddpm_eval.results.store import Result

STEPS = 20
WEIGHTS = "weights"


def make_log(**values):
    """A finished training of 30 updates."""
    known = {
        "loss": np.linspace(1, 0.1, 30, dtype=np.float32),
        "gradient_norm": np.ones(30, dtype=np.float32),
        "status": "ok",
        "reason": "",
        "steps": 30,
        "images": 480,
        "seconds": 2.0,
        "parameters": 1234,
    }
    return TrainingLog(**{**known, **values})


def make_history(update=(10, 20, 30)):
    """The bound of six images at several moments."""
    values = np.linspace(3, 4, 6) * np.ones((len(update), 1))
    return BoundHistory(
        update=np.array(update),
        image_id=np.arange(6),
        offset=(np.arange(6) + 0.5) / 6,
        total=values,
        rate=values / 2,
        distortion=values / 2,
        split="test",
        protocol=PROTOCOLS["paper"],
        evaluations_per_image=8,
        inexact_left_out=0,
    )


def images(*shape):
    """Images of one level."""
    return np.full((*shape, 1, 8, 8), 7, np.uint8)


def make_neighbours():
    """Neighbours of four samples."""
    distances = np.linspace(1, 2, 12).reshape(4, 3)
    return Neighbours(
        pixel_id=np.arange(12).reshape(4, 3),
        pixel_distance=distances,
        feature_id=np.arange(12).reshape(4, 3),
        feature_distance=distances,
        held_out_pixel_distance=np.ones(5),
        held_out_feature_distance=np.ones(5),
        shown=images(2),
        shown_pixel=images(2, 3),
        shown_feature=images(2, 3),
        pixel_memorisation=Estimate(0.3, 0.2, 0.4, "1"),
        feature_memorisation=Estimate(0.3, 0.2, 0.4, "1"),
        n_samples=4,
        n_train=50,
        n_held_out=5,
        mirrored=False,
        features="digits-classifier",
        weights_digest="",
    )


def make_interpolations(t, pairs):
    """Mixtures of images of one level, from black to white ones."""
    return Interpolations(
        source=0 * images(pairs),
        target=0 * images(pairs) + 255,
        weight=np.array([0, 0.5, 1]),
        images=images(3, pairs),
        t=t,
    )


def make_samples(n=70, broken=()):
    """Samples of one level, of which some are not finite."""
    return Samples(
        images=images(n),
        out_of_range=np.where(np.isin(np.arange(n), broken), np.nan, 0.0),
        seconds=np.ones(n),
        method="ancestral",
        num_steps=STEPS,
        seed=0,
    )


def make_simple_codes(**values):
    """Codelengths of twelve images without a network."""
    known = {
        "image_id": np.arange(12),
        "uniform": np.full(12, 4.09),
        "histogram": np.linspace(2.9, 3.1, 12),
        "pixel_histograms": np.linspace(2.4, 2.6, 12),
        "coded_bytes": np.array([300.0, np.nan]),
        "coders": "PNG, AVIF",
        "coder_notes": "AVIF is not exact",
        "coded_dimensions": 12 * 64,
        "n_coded": 12,
        "levels": 17,
        "mean_image_rmse": 66.0,
        "split": "test",
        "n_train": 50,
    }
    return SimpleCodes(**{**known, **values})


def make_schedule_tables():
    """Tables whose fixed-large variance is twice, and fixed-small just, the posterior variance."""
    beta_tilde = np.linspace(0.01, 0.2, STEPS)
    return ScheduleTables(
        beta=beta_tilde,
        alpha_bar=np.linspace(0.99, 0.01, STEPS),
        beta_tilde=beta_tilde,
        fixed_large=2 * beta_tilde,
        fixed_small=beta_tilde,
    )


def bounds():
    """Bounds of the main run under all compared protocols, of training images, and of shorter chains."""
    rng = np.random.default_rng(5)
    terms = realistic(12, rng, steps=STEPS).term_values()
    found = {}
    for protocol in COMPARED:
        variance = "fixed-large" if protocol.variance == "trained" else protocol.variance
        found[bound_name("test", protocol)] = make_terms(terms, protocol=protocol, variance=variance)
    for protocol in PROTOCOLS.values():
        found[bound_name("train", protocol)] = make_terms(terms[:8], split="train", protocol=protocol)
    for protocol in CHAIN_PROTOCOLS:
        for length in (length for length in CHAINS if length < STEPS):
            full = make_terms(terms[:, :length], protocol=protocol, variance=protocol.variance)
            found[bound_name("test", protocol, "stratified", length)] = subsample(full, 4, rng)
    return found


def main_results():
    """Everything that is measured of the paper's model, by name."""
    t = np.array([20, 10, 1])
    return {
        "training": make_log(),
        "schedule": make_schedule_tables(),
        "reference-images": ReferenceImages(images=images(3), name="digits", split="train"),
        "baseline": Baseline(
            image_id=np.arange(12),
            nll=np.linspace(100, 110, 12),
            bound=np.linspace(90, 100, 12),
            split="test",
            variance="fixed-large",
            dimensions=64,
            n_train=50,
        ),
        "simple-codes": make_simple_codes(),
        **bounds(),
        "progressive": Trajectory(t=t, x_0_hat=images(3, 4)),
        "samples": make_samples(),
        "quality": make_quality(caption="70 samples", frechet_distance=(3.0, 2.0, 4.0)),
        "coverage": make_coverage(),
        QUALITY_OVER_TIME: make_curve("t", t),
        QUALITY_OVER_STEPS["ancestral"]: make_curve("steps", [10, 20]),
        QUALITY_OVER_STEPS["ddim"]: make_curve("steps", [10], "ddim"),
        "neighbours": make_neighbours(),
        "shared-latents": SharedLatents(t=np.array([20, 10]), x_t=images(2, 3), images=images(2, 3, 2)),
        "interpolation": make_interpolations(5, 2),
        "interpolation-20": make_interpolations(20, 1),
        BOUND_HISTORY: make_history(),
    }


def cell_results():
    """What is measured of the other cells of Table 2."""
    rng = np.random.default_rng(6)
    full = realistic(12, rng, steps=STEPS)
    return {
        "training": make_log(),
        bound_name("test", PROTOCOLS["paper"], "stratified"): subsample(full, 5, rng),
        "samples": make_samples(20),
        "quality": make_quality(caption="70 samples"),
    }


def store_results(run, results, weights=WEIGHTS, **provenance):
    """Put results into a run of a study as made with ``weights``, which training made."""
    known = {"weights": weights, "device": "a CPU", "spec": run.spec.model_dump(mode="json"), **provenance}
    keys = {name: weights if name in ("training", "schedule") else f"key-{weights}" for name in results}
    run.results.put_all([Result(name, record, keys[name]) for name, record in results.items()], known)


def store_study(study):
    """Put results into all runs of a study."""
    for run in study.every_run:
        store_results(run, main_results() if run in study.subjects else cell_results())
