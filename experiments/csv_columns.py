"""The dictionary of the CSV files that reports write: each file's columns, each column's unit and meaning.

An estimate ``x`` stands for its bounds ``x_low`` and ``x_high``, too, and ``value``, ``ours`` and
``bits_per_dim`` for ``low`` and ``high`` where a file has those. docs/fields.md is generated from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Column(NamedTuple):
    """What a column holds; the unit of texts is empty."""

    unit: str
    meaning: str


@dataclass(frozen=True)
class CsvFile:
    """A CSV file, or several of one form.

    Attributes:
        names: paths below the report's folder, without suffix.
        rows: what a row is.
        columns: names, separated by spaces.
        own: columns that mean something of their own here; the others are in `COLUMNS`.
    """

    names: str
    rows: str
    columns: str
    own: Mapping[str, Column] = field(default_factory=dict)

    def described(self) -> dict[str, Column]:
        """Return what each column holds, in order."""
        return {name: self.own.get(name) or COLUMNS[name] for name in self.columns.split()}


BITS = "bits/dim"
ONE = "1"
COLUMNS = {
    "run": Column("", "name of the run"),
    "data": Column("", "name of the data set"),
    "split": Column("", "train or test"),
    "t": Column("step", "time of the step in the chain, 1 to T; of a range of times its name"),
    "t_first": Column("step", "first time of the range"),
    "t_last": Column("step", "last time of the range"),
    "reverse_steps": Column("steps", "reverse steps taken from T on: T - t + 1"),
    "steps": Column("steps", "steps of the chain, which is evenly spaced in that of T steps"),
    "update": Column("updates", "number of the parameter update"),
    "updates": Column("updates", "parameter updates done"),
    "n_images": Column("images", "images behind the row"),
    "n_samples": Column("samples", "samples behind the row"),
    "n_distortion": Column("images", "images behind the error at this step"),
    "features": Column("", "extractor in whose features scores and distances were measured"),
    "variance": Column("", "reverse variance: fixed-large, fixed-small, learned or optimal"),
    "estimator": Column("", "full (all T terms of each image) or stratified (a few of them)"),
    "network_evaluations": Column("evaluations", "evaluations of the network, over all images"),
    "quantity": Column("", "rate (L_1 to L_{T-1}), distortion (L_0), prior (L_T) or total (their sum)"),
    "bits_per_dim": Column(BITS, "the bound, or the part of it that the row names"),
    "total_bits_per_dim": Column(BITS, "the bound"),
    "rate_bits_per_dim": Column(BITS, "terms L_1 to L_{T-1}; in curves those received before the estimate"),
    "distortion_bits_per_dim": Column(BITS, "term L_0, that of the decoder"),
    "prior_bits_per_dim": Column(BITS, "term L_T"),
    "floor_bits_per_dim": Column(BITS, "what the fixed variance costs even with the exact mean"),
    "difference_bits_per_dim": Column(BITS, "difference from the first row or run, paired by image"),
    "rmse_255": Column("8-bit levels", "root of the mean squared error of x0_hat over all pixels"),
    "image_rmse_255": Column("8-bit levels", "mean over images of the root mean squared error of x0_hat"),
    "psnr_db": Column("dB", "peak signal-to-noise ratio of rmse_255"),
    "score": Column(ONE, "Inception score, or the score of another classifier (see features)"),
    "score_std": Column(ONE, "standard deviation of the score over its splits"),
    "frechet_distance": Column("squared feature units", "distance of samples to training images"),
    "reference_distance": Column("squared feature units", "distance of test images to training images"),
    "seconds_per_image": Column("s", "time to draw a sample"),
    "method": Column("", "sampler: ancestral or ddim"),
    "prediction": Column("", "what the network predicts: mu or eps"),
    "objective": Column("", "what it is trained on: L, or the mean squared error (MSE)"),
    "status": Column("", "ok, diverged, or missing (not all is measured); of a training as in TrainingLog"),
    "trainings": Column("trainings", "trainings that the row is the mean of, each with a seed of its own"),
    "seed": Column(ONE, "seed of the training"),
    "parameters": Column(ONE, "parameters of the network"),
    "paper_inception_score": Column(ONE, "the paper's, of CIFAR-10"),
    "paper_fid": Column("squared feature units", "the paper's, of CIFAR-10"),
    "paper_bits_per_dim": Column(BITS, "the paper's, of CIFAR-10"),
    "paper_rate_bits_per_dim": Column(BITS, "the paper's, of CIFAR-10"),
    "paper_rmse_255": Column("8-bit levels", "the paper's, of CIFAR-10"),
    "score_std_over_trainings": Column(ONE, "standard deviation between trainings"),
    "frechet_distance_std_over_trainings": Column(
        "squared feature units", "standard deviation between trainings"
    ),
    "bits_per_dim_std_over_trainings": Column(BITS, "standard deviation between trainings"),
    "model": Column("", "the model, or what stands beside it"),
    "value": Column("as the metric", "the estimate"),
    "metric": Column("", "name of a field of Quality or Coverage"),
    "n": Column("samples or images", "how many are behind the row"),
    "reference": Column("", "split that samples are compared with"),
    "panel": Column("", "group or place in the figure"),
    "image": Column(ONE, "number of the image in its panel, from 0"),
    "0_0_0": Column("8-bit level", "level of the pixel at channel_row_column; a column for each"),
    "protocol": Column("", "name of the protocol of the bound, see docs/protocol.md"),
}
"""Columns that mean the same wherever they occur."""
TABLE_2 = (
    "prediction objective variance status score score_std frechet_distance bits_per_dim n_samples features"
)
OVER_SEEDS = (
    "score_std_over_trainings frechet_distance_std_over_trainings bits_per_dim_std_over_trainings trainings"
)
LEARNED = {"variance": Column("", "learned or fixed")}
CHAINS = "variance steps total_bits_per_dim estimator network_evaluations n_images"
CLASSES = "images class n_assigned share n_images"
OF_CLASSES = {
    "images": Column("", "samples, or images of the split that they are compared with"),
    "class": Column("label", "class that the extractor assigns"),
    "n_assigned": Column("images", "images that are assigned to the class"),
    "share": Column(ONE, "share of all images that are assigned to the class"),
}
OVER_STEPS = "method steps seconds_per_image frechet_distance score n_samples features"
WEIGHTED = "weight_l weight_l_simple l_bits_per_dim l_simple_bits_per_dim difference_bits_per_dim n_images"
OF_WEIGHTED = {
    "weight_l": Column(ONE, "share of the range in the weights of training on L"),
    "weight_l_simple": Column(ONE, "share of the range in the weights of training on L_simple"),
    "l_bits_per_dim": Column(BITS, "terms of the model that was trained on L"),
    "l_simple_bits_per_dim": Column(BITS, "terms of the model that was trained on L_simple"),
    "difference_bits_per_dim": Column(BITS, "L minus L_simple, paired by image"),
}
CURVE = "t reverse_steps rate_bits_per_dim rmse_255 image_rmse_255 psnr_db n_images n_distortion"
OF_TRAINING = {
    "update": Column("updates", "last update of the block"),
    "loss": Column("nats or squared error", "mean loss of the block"),
    "gradient_norm": Column(ONE, "mean norm of the gradient before clipping"),
    "updates": Column("updates", "updates in the block"),
}
IMAGES = CsvFile(
    "figures/samples figures/samples_same_noise figures/progressive figures/shared_latents "
    "figures/interpolation figures/interpolation_times figures/neighbours",
    "an image",
    "panel image 0_0_0",
)
REPORT = (
    CsvFile(
        "tables/claims",
        "a sentence of the paper",
        "claim place paper ours verdict condition",
        {
            "claim": Column("", "the sentence"),
            "place": Column("", "where the paper says it"),
            "paper": Column("", "the numbers of the paper behind it"),
            "ours": Column("as the condition", "the quantity that decides"),
            "verdict": Column("", "holds, does not hold or undecided"),
            "condition": Column("", "what the quantity is, and what must hold of it"),
        },
    ),
    CsvFile(
        "tables/table2",
        "a cell of Table 2; of several seeds also the columns that speak of trainings",
        f"{TABLE_2} paper_inception_score paper_fid {OVER_SEEDS}",
        LEARNED,
    ),
    CsvFile(
        "figures/table2",
        "a cell of Table 2, as in the table",
        f"{TABLE_2} paper_inception_score paper_fid {OVER_SEEDS} n_images reference_distance",
        LEARNED,
    ),
    CsvFile(
        "tables/table2_seeds",
        "a training of a cell, of several seeds",
        "prediction objective variance seed status score frechet_distance bits_per_dim",
        LEARNED,
    ),
    CsvFile(
        "tables/table2_differences",
        "a cell, of several seeds",
        "cell frechet_distance frechet_distance_trainings bits_per_dim bits_per_dim_trainings",
        {
            "cell": Column("", "prediction, objective, variance"),
            "frechet_distance": Column("squared feature units", "the cell's minus that of the paper's model"),
            "frechet_distance_trainings": Column("trainings", "trainings behind the difference of distances"),
            "bits_per_dim": Column(BITS, "the cell's minus that of the paper's model"),
            "bits_per_dim_trainings": Column("trainings", "trainings behind the difference of bits/dim"),
        },
    ),
    CsvFile("tables/objectives", "a range of times", f"t {WEIGHTED}", OF_WEIGHTED),
    CsvFile("figures/objectives", "a range of times", f"t t_first t_last {WEIGHTED}", OF_WEIGHTED),
    CsvFile(
        "tables/split",
        "a part of the bound",
        "quantity bits_per_dim n_images split variance paper_bits_per_dim",
    ),
    CsvFile(
        "tables/table4",
        "a number of reverse steps",
        f"{CURVE} paper_rate_bits_per_dim paper_rmse_255",
    ),
    CsvFile("figures/rate_distortion", "a time", CURVE),
    CsvFile(
        "tables/baseline tables/baseline_digits",
        "the model, or a code without a trained network",
        "model bits_per_dim n_images",
    ),
    CsvFile("figures/terms", "a time", "t bits_per_dim n_images floor_bits_per_dim"),
    CsvFile(
        "figures/bits",
        "a range of times",
        "t t_first t_last bits_per_dim share n_images",
        {"share": Column(ONE, "share of the range in the bound")},
    ),
    CsvFile(
        "tables/protocols",
        "a protocol",
        "protocol variance clip decoder draws steps estimator network_evaluations split n_images "
        "inexact_left_out total_bits_per_dim rate_bits_per_dim distortion_bits_per_dim prior_bits_per_dim "
        "floor_bits_per_dim decoder_share difference_bits_per_dim",
        {
            "clip": Column("", "whether x0_hat is clipped to [-1, 1]"),
            "decoder": Column("", "exact, or tanh (the authors' approximation)"),
            "draws": Column("draws", "noise draws of each image and time"),
            "inexact_left_out": Column("images", "images that are not 8-bit and were left out"),
            "decoder_share": Column(ONE, "distortion over total"),
        },
    ),
    CsvFile(
        "tables/gap",
        "a part of the bound",
        "quantity train_bits_per_dim test_bits_per_dim gap_bits_per_dim n_train n_test",
        {
            "train_bits_per_dim": Column(BITS, "of training images"),
            "test_bits_per_dim": Column(BITS, "of test images"),
            "gap_bits_per_dim": Column(BITS, "test minus train"),
            "n_train": Column("images", "training images"),
            "n_test": Column("images", "test images"),
        },
    ),
    CsvFile(
        "figures/estimators",
        "an estimator of the bound",
        "estimator network_evaluations n_images bits_per_dim standard_error",
        {"standard_error": Column(BITS, "standard error of the bound over images and noise")},
    ),
    CsvFile("tables/chains figures/chains", "a chain", CHAINS),
    CsvFile("figures/quality_time", "a time", "t reverse_steps frechet_distance score n_samples features"),
    CsvFile("tables/steps figures/quality_steps", "a sampler with so many steps", OVER_STEPS),
    CsvFile(
        "tables/memorisation",
        "a space in which neighbours are searched",
        "space memorisation median_distance median_held_out_distance unit n_samples n_held_out",
        {
            "space": Column("", "pixel or feature"),
            "memorisation": Column(
                ONE, "probability that a sample is nearer than a held-out image, see Neighbours"
            ),
            "median_distance": Column("as unit", "median distance of samples to the nearest training image"),
            "median_held_out_distance": Column("as unit", "the same of held-out images"),
            "unit": Column("", "unit of the distances"),
            "n_held_out": Column("images", "held-out images"),
        },
    ),
    CsvFile("tables/quality", "a metric of a run", "run metric value n features reference"),
    CsvFile("tables/classes figures/classes", "a class", CLASSES, OF_CLASSES),
    CsvFile(
        "tables/table1",
        "a measured model, or one of the literature",
        "model data conditional features score frechet_distance test_bits_per_dim train_bits_per_dim "
        "is_bound",
        {
            "conditional": Column("", "whether the model takes classes"),
            "test_bits_per_dim": Column(BITS, "codelength of test images"),
            "train_bits_per_dim": Column(BITS, "codelength of training images"),
            "is_bound": Column("", "whether the codelengths are upper bounds"),
        },
    ),
    CsvFile(
        "tables/training",
        "a run",
        "run status updates images seconds parameters",
        {
            "images": Column("images", "training images seen, repetitions counted"),
            "seconds": Column("s", "wall time of training"),
        },
    ),
    CsvFile(
        "figures/training_mse figures/training_vlb",
        "a block of updates of a run",
        "update loss gradient_norm updates run",
        OF_TRAINING,
    ),
    CsvFile(
        "figures/training_bound",
        "a moment of a training",
        "update n_images bits_per_dim rate distortion run",
        {
            "rate": Column(BITS, COLUMNS["rate_bits_per_dim"].meaning),
            "distortion": Column(BITS, COLUMNS["distortion_bits_per_dim"].meaning),
        },
    ),
    IMAGES,
)
"""The files of a report."""
COMPARISON = (
    CsvFile(
        "leaderboard",
        "a run, the lowest bound first",
        "run updates bits_per_dim difference_bits_per_dim frechet_distance score features features_digest "
        "quality_protocol rate_bits_per_dim distortion_bits_per_dim prior_bits_per_dim n_images n_samples "
        "data split data_digest timesteps protocol variance estimator noise_seed precision parameters "
        "weights folder",
        {
            "features_digest": Column("", "digest of the extractor's weights"),
            "quality_protocol": Column("", "name of the quality protocol, see docs/quality.md"),
            "data_digest": Column("", "digest of the images"),
            "timesteps": Column("steps", "T"),
            "noise_seed": Column(ONE, "seed of the noise that all runs share"),
            "precision": Column("", "precision of the network's arithmetic"),
            "weights": Column("", "digest of the run's weights"),
            "folder": Column("", "path of the run"),
        },
    ),
    CsvFile(
        "tables/differences",
        "a quantity of a run but the first",
        "run quantity bits_per_dim first_bits_per_dim difference_bits_per_dim unpaired_bits_per_dim "
        "times_narrower n_images",
        {
            "first_bits_per_dim": Column(BITS, "the quantity of the first run"),
            "unpaired_bits_per_dim": Column(BITS, "the difference with the interval of independent images"),
            "times_narrower": Column(ONE, "width of the unpaired interval over that of the paired one"),
        },
    ),
    CsvFile(
        "figures/step_differences",
        "a time of a run",
        "run t difference_bits_per_dim cumulated_bits_per_dim n_images",
        {"cumulated_bits_per_dim": Column(BITS, "difference of all terms up to t")},
    ),
    CsvFile("figures/rate_distortion", "a time of a run", f"{CURVE} run"),
    CsvFile(
        "figures/checkpoints_bits_per_dim figures/checkpoints_difference_bits_per_dim "
        "figures/checkpoints_frechet_distance",
        "a checkpoint of one training",
        "updates bits_per_dim difference_bits_per_dim frechet_distance score n_images run",
    ),
    CsvFile("tables/quality", "a metric of a run", "run metric value n features reference"),
    CsvFile("figures/samples", "an image", IMAGES.columns),
)
"""The files of the page of ``compare``."""
