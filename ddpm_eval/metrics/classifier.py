"""A classifier trained on a data set's own labels, as a feature extractor: network, training and file.

Its features yield numbers of the same form as FID and Inception score, but on another scale: they never
carry those names. A classifier is trained once and kept in a file whose name holds `classifier_key`, the
digest of all that its weights depend on.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.files import digest
from ddpm_eval.metrics.features import Extractor, match_channels, parameter_digest
from ddpm_eval.metrics.fidelity import (
    FEATURE_EXTRACTORS_REGISTRY,
    FeatureExtractorBase,
    register_feature_extractor,
)
from ddpm_eval.randomness import derive_seed
from ddpm_eval.runtime import ALONE, Progress, Runtime, global_seed, silent
from ddpm_eval.spec import LARGEST_SIDE
from ddpm_eval.spec_text import read_json
from ddpm_eval.training.tensor_files import FileKind, damaged, read_tensors, write_tensors
from ddpm_eval.training.weights import check_weights

LAYERS = ("features", "logits")
FEATURE_WIDTH = 64
SMALL_SIDE = 16
"""Sides in pixels up to this one get the wider network."""
FINAL_SIDE = 4
WIDEST_POOLED = 128
"""Convolutions of more channels are not followed by another halving of the side."""
RECIPE_VERSION = 1
"""To be raised when a change of this file changes the weights without changing a field of `Recipe`."""
KIND = FileKind(
    name="safetensors file",
    field="kind",
    value="ddpm_eval classifier 2",
    others=frozenset({"metadata"}),
    foreign="holds weights of another network, not a data set's classifier",
)
"""What a classifier's file says that it is."""
TRAINING = "training the classifier"
"""The stage's name under which progress is told."""
FEWEST_IMAGES = 64
MOST_CLASSES = 10**5
EVALUATION_BATCH = 500
BATCH_SIZE = 256
"""Images per pass, which use at most about 1 GB."""


@dataclass(frozen=True)
class Recipe:
    """All that a classifier's weights depend on beside its data and its seed.

    Attributes:
        pair_widths: channels of each pair of convolutions; the side is halved between the pairs.
        feature_width: channels of the last convolution.
        steps: parameter updates.
        batch_size: images per update.
        max_shift: pixels by which a batch is shifted at most in either direction.
        learning_rate: largest learning rate of the one-cycle schedule.
        weight_decay: of AdamW.
        version: `RECIPE_VERSION`.
    """

    pair_widths: tuple[int, ...]
    feature_width: int
    steps: int
    batch_size: int
    max_shift: int
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    version: int = RECIPE_VERSION


@dataclass(frozen=True)
class ClassifierMetadata:
    """What a classifier's file says about it.

    Attributes:
        data: name of the data set.
        train_digest: digest of the images and labels that it was trained on.
        test_digest: digest of the test images and labels.
        channels: channels of the images.
        side: side of the images in pixels.
        classes: label of each logit.
        seed: of its training.
        recipe_version: `RECIPE_VERSION` of its training.
        test_accuracy: share of the test images that it gets right.
        n_test: number of test images.
    """

    data: str
    train_digest: str
    test_digest: str
    channels: int
    side: int
    classes: tuple[int, ...]
    seed: int
    recipe_version: int
    test_accuracy: float
    n_test: int


class ClassifierNetwork(nn.Module):
    """Pairs of 3x3 convolutions with the side halved between them, then the average over all positions.

    Args:
        channels: channels of the images.
        side: side of the images in pixels.
        classes: number of logits.
    """

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        *pooled, last = _pair_widths(side)
        layers: list[nn.Module] = []
        for width in pooled:
            layers += [*_convolution(channels, width), *_convolution(width, width), nn.MaxPool2d(2)]
            channels = width
        layers += [*_convolution(channels, last), *_convolution(last, FEATURE_WIDTH)]
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(FEATURE_WIDTH, classes)
        if side > SMALL_SIDE:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # a quarter faster

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``[n, classes]`` of images in [-1, 1]."""
        return self.head(self.trunk(x))


class DatasetClassifier(FeatureExtractorBase):
    """The classifier as torch-fidelity's kind of extractor.

    Layer ``features`` is the average of the last convolution over all positions, ``logits`` its linear
    classification.

    Args:
        name: the name under which it is registered.
        features_list: layers to return, in this order.
        feature_extractor_weights_path: file written by `load_or_train_classifier`.
        settings: torch-fidelity's other options, of which none applies.

    Raises:
        ValueError: if the file is missing or holds no classifier of this recipe.
    """

    def __init__(
        self,
        name: str,
        features_list: Sequence[str],
        feature_extractor_weights_path: str | None = None,
        **settings: object,
    ) -> None:
        super().__init__(name, features_list)
        if feature_extractor_weights_path is None:
            raise ValueError(f"the classifier {name} needs its weights file (feature_extractor_weights_path)")
        weights, self.metadata = _read(Path(feature_extractor_weights_path))
        # the initial values are overwritten; the global generator stays as it was
        with global_seed(0, torch.device("cpu")):
            self.network = ClassifierNetwork(
                self.metadata.channels, self.metadata.side, len(self.metadata.classes)
            )
        check_weights(weights, self.network, feature_extractor_weights_path)
        self.network.load_state_dict(weights)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the requested layers of uint8 images ``[n, 1 or 3, side, side]``.

        Raises:
            ValueError: if the images are not uint8, coloured for a grayscale classifier, or of another size.
        """
        side = self.metadata.side
        x = to_model_range(match_channels(images, self.metadata.channels))
        if x.shape[2:] != (side, side):
            raise ValueError(
                f"images are {x.shape[2]}x{x.shape[3]} pixels, but the classifier {self.name} was trained on "
                f"{side}x{side} (images of another data set?)"
            )
        features = self.network.trunk(x)
        layers = {"features": features, "logits": self.network.head(features)}
        return tuple(layers[name] for name in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """List the layers."""
        return LAYERS

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Name the layer that a torch-fidelity metric uses."""
        return {"isc": "logits", "fid": "features", "kid": "features", "prc": "features"}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        """Return False: the network is too small to gain."""
        return False


def load_or_train_classifier(
    train: ImageSet,
    test: ImageSet,
    folder: Path,
    *,
    seed: int = 0,
    runtime: Runtime = ALONE,
    progress: Progress = silent,
) -> Extractor:
    """Return the data set's classifier; it is trained on the labels unless ``folder`` holds it already.

    Args:
        train: images with labels to train on.
        test: images with labels, on which the reported accuracy is measured.
        folder: folder of trained classifiers; it is created if needed.
        seed: seed of the initialisation, of the images' order and of the shifts.
        runtime: where the classifier is trained (by the main process) and runs.
        progress: called before the first update of the training, and after each.

    Raises:
        ValueError: if labels are absent, the test set has classes that the training set lacks, or the file is
            damaged or of other images.
    """
    path = classifier_path(train, test, folder, seed=seed)
    if runtime.main and not path.exists():
        weights, metadata = _train(train, test, seed, runtime.device, progress)
        write_tensors(path, weights, {KIND.field: KIND.value, "metadata": json.dumps(asdict(metadata))})
    runtime.barrier()
    _, found = _read(path)
    if (found.train_digest, found.test_digest) != (train.digest, test.digest):
        raise ValueError(
            f"{path} is the classifier of other images, those of {found.data} (files exchanged? delete it to "
            "train again)"
        )
    return load_classifier(path, runtime=runtime)


def load_classifier(path: Path, *, runtime: Runtime = ALONE) -> Extractor:
    """Load a file written by `load_or_train_classifier` and register the classifier with torch-fidelity.

    Raises:
        ValueError: if the file is missing or holds no classifier of this recipe.
    """
    name = classifier_name(_read(path)[1].data)
    if name not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(name, DatasetClassifier)
    network = DatasetClassifier(name, LAYERS, feature_extractor_weights_path=str(path)).to(runtime.device)
    return Extractor(
        name=name,
        weights_path=path,
        weights_digest=parameter_digest(network.state_dict()),
        feature_layer="features",
        logits_layer="logits",
        test_accuracy=network.metadata.test_accuracy,
        n_test=network.metadata.n_test,
        channels=network.metadata.channels,
        width=FEATURE_WIDTH,
        resize="none",
        batch_size=BATCH_SIZE,
        module=network,
        runtime=runtime,
        classes=network.metadata.classes,
    )


def classifier_key(train: ImageSet, test: ImageSet, *, seed: int = 0) -> str:
    """Return the digest of all that a classifier and its accuracy depend on: data, seed and recipe."""
    return digest(train.digest, test.digest, seed, asdict(training_recipe(train)))


def classifier_path(train: ImageSet, test: ImageSet, folder: Path, *, seed: int = 0) -> Path:
    """Return the file in which a data set's classifier is kept."""
    return folder / f"{classifier_name(train.name)}-{classifier_key(train, test, seed=seed)}.safetensors"


def classifier_name(data: str) -> str:
    """Return the registered name of a data set's classifier: ``b-classifier`` for ``npz:a/b.npz``."""
    own = Path(data.split(":", 1)[-1]).stem
    return f"{re.sub('[^a-z0-9]+', '-', own.lower()).strip('-')}-classifier"


def training_recipe(train: ImageSet) -> Recipe:
    """Return the recipe for a training set.

    It makes twenty passes over a small set and at most 2,000 updates on a larger one; batches are shifted by
    up to a sixteenth of the side.
    """
    batch_size = 64 if len(train) < 10_000 else 128
    return Recipe(
        pair_widths=_pair_widths(train.side),
        feature_width=FEATURE_WIDTH,
        steps=min(20 * max(1, len(train) // batch_size), 2000),
        batch_size=batch_size,
        max_shift=max(1, train.side // 16),
    )


def _pair_widths(side: int) -> tuple[int, ...]:
    """Return the channels of each pair of convolutions, twice as many after each halving of the side."""
    widths = [32 if side <= SMALL_SIDE else 16]
    while side > FINAL_SIDE and widths[-1] <= WIDEST_POOLED:
        widths.append(2 * widths[-1])
        side //= 2
    return tuple(widths)


def _convolution(width: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]


def _train(
    train: ImageSet, test: ImageSet, seed: int, device: torch.device, progress: Progress
) -> tuple[dict[str, Tensor], ClassifierMetadata]:
    classes, targets = _targets(train)
    with global_seed(derive_seed(seed, RECIPE_VERSION), torch.device("cpu")):
        network = ClassifierNetwork(train.channels, train.side, len(classes)).to(device)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        _optimise(network, train, targets, seed, progress)
        accuracy = _accuracy(network.eval(), test, classes)
    metadata = ClassifierMetadata(
        data=train.name,
        train_digest=train.digest,
        test_digest=test.digest,
        channels=train.channels,
        side=train.side,
        classes=classes,
        seed=seed,
        recipe_version=RECIPE_VERSION,
        test_accuracy=accuracy,
        n_test=len(test),
    )
    return network.state_dict(), metadata


def _targets(train: ImageSet) -> tuple[tuple[int, ...], Tensor]:
    """Return the sorted classes of a set and each image's index among them."""
    if train.labels is None:
        raise ValueError(
            f"{train.name} has no labels, which a classifier needs (give --inception-weights to measure with "
            "Inception instead)"
        )
    classes, targets = np.unique(train.labels, return_inverse=True)
    if len(classes) < 2 or len(train) < FEWEST_IMAGES:
        raise ValueError(
            f"{train.name} has {len(train)} images of {len(classes)} classes: too few to train a classifier "
            "on"
        )
    return tuple(classes.tolist()), torch.from_numpy(targets)


def _optimise(
    network: ClassifierNetwork, train: ImageSet, targets: Tensor, seed: int, progress: Progress
) -> None:
    recipe = training_recipe(train)
    optimiser = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.steps)
    device = network.head.weight.device
    batches = _batches(train, recipe, torch.Generator().manual_seed(seed))
    progress(TRAINING, 0, recipe.steps)
    for step, (x, index) in enumerate(batches, start=1):
        loss = F.cross_entropy(network(x.to(device)), targets[index].to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress(TRAINING, step, recipe.steps)


def _batches(train: ImageSet, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches in [-1, 1], each shifted as a whole by a few pixels, and their positions."""
    order = torch.randperm(len(train), generator=generator)
    for _ in range(recipe.steps):
        if len(order) < recipe.batch_size:
            order = torch.randperm(len(train), generator=generator)
        index = order[: recipe.batch_size]
        order = order[recipe.batch_size :]
        x = to_model_range(torch.from_numpy(train.take(index.numpy())))
        top, left = torch.randint(2 * recipe.max_shift + 1, (2,), generator=generator).tolist()
        padded = F.pad(x, (recipe.max_shift,) * 4, value=-1.0)
        yield padded[:, :, top : top + train.side, left : left + train.side], index


def _accuracy(network: ClassifierNetwork, test: ImageSet, classes: tuple[int, ...]) -> float:
    if test.labels is None or not set(test.labels.tolist()) <= set(classes):
        raise ValueError(
            f"the test images of {test.name} have no labels, or classes that its training images lack"
        )
    correct = 0
    for first in range(0, len(test), EVALUATION_BATCH):
        index = np.arange(first, min(first + EVALUATION_BATCH, len(test)))
        x = to_model_range(torch.from_numpy(test.take(index))).to(network.head.weight.device)
        with torch.inference_mode():
            assigned = network(x).argmax(1).cpu().numpy()
        correct += int((np.array(classes)[assigned] == test.labels[index]).sum())
    return correct / len(test)


def _read(path: Path) -> tuple[dict[str, Tensor], ClassifierMetadata]:
    """Read a classifier's weights and metadata.

    Raises:
        ValueError: if the file is damaged or holds no classifier of this recipe.
    """
    file = read_tensors(path, KIND)
    try:
        metadata = TypeAdapter(ClassifierMetadata).validate_python(read_json(file.header["metadata"]))
    except ValidationError as error:
        raise damaged(path, f"its metadata: {error.errors()[0]['msg']}") from None
    except ValueError as error:
        raise damaged(path, str(error)) from None
    if metadata.recipe_version != RECIPE_VERSION:
        raise ValueError(
            f"{path} is a classifier of recipe {metadata.recipe_version}, this program's is {RECIPE_VERSION} "
            "(delete it to train again)"
        )
    if not _is_possible(metadata):
        raise damaged(path, f"its metadata are impossible: {metadata}")
    return file.tensors, metadata


def _is_possible(metadata: ClassifierMetadata) -> bool:
    """Tell whether a classifier can be what its metadata say, before a network of that size is made."""
    return (
        metadata.channels in (1, 3)
        and 1 <= metadata.side <= LARGEST_SIDE
        and 2 <= len(metadata.classes) <= MOST_CLASSES
        and 0 <= metadata.test_accuracy <= 1
        and metadata.n_test >= 1
    )
