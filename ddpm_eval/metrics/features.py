"""Images to features: torch-fidelity's networks, and a classifier trained on a data set's own labels.

Conventions: images are uint8 ``[n, channels, side, side]``; an extractor gives float32 features ``[n,
    width]`` and float32
logits ``[n, classes]``. Networks run in evaluation mode, so an image's features do not depend on its batch
(to rounding). Features of the data set's classifier yield numbers of the same form as FID and Inception
score, but on another scale: they never carry those names.

Whoever imports torch-fidelity imports this module first: it imports torchvision in the way that works beside
any torch.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_eval.data.image_set import Images, ImageSet
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.data.torchvision_compatibility import import_torchvision
from ddpm_eval.randomness import derive_seed
from ddpm_eval.runtime import ALONE, Progress, Runtime, global_seed, silent
from ddpm_eval.training.checkpoint import write_tensors

import_torchvision()  # makes the next line possible

import torch_fidelity  # noqa: E402
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3  # noqa: E402
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY  # noqa: E402

INCEPTION = "inception-v3-compat"
INCEPTION_LAYERS = ("2048", "logits_unbiased", "logits")
CLASSIFIER_LAYERS = ("features", "logits")
FEATURE_WIDTH = 64
RECIPE = 1
"""Version of the classifier's architecture and training; part of its file's name."""


class DatasetClassifier(torch_fidelity.FeatureExtractorBase):
    """A convolutional classifier of a data set's own labels, as a torch-fidelity feature extractor.

    Layer ``features`` is the pooled output of the last convolution (64 wide), ``logits`` its linear
    classification.

    Args:
        name: under which it is registered.
        features_list: layers to return, in this order.
        feature_extractor_weights_path: safetensors file written by `classifier`.
        settings: torch-fidelity's other options, of which none applies.
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
        weights, facts = _read_classifier(Path(feature_extractor_weights_path))
        with global_seed(
            0, torch.device("cpu")
        ):  # the layers' initial values are overwritten; leave the generator as it was
            self.network = ClassifierNetwork(facts.channels, facts.side, len(facts.classes))
        self.network.load_state_dict(weights)
        self.facts = facts
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the requested layers of uint8 images ``[n, 1 or 3, side, side]``."""
        x = to_model_range(match_channels(images, self.facts.channels))
        if x.shape[2:] != (self.facts.side, self.facts.side):
            raise ValueError(
                f"images are {x.shape[2]}x{x.shape[3]} pixels, but the classifier {self.name} was trained on "
                f"{self.facts.side}x{self.facts.side} (images of another data set?)"
            )
        features = self.network.trunk(x)
        layers = {"features": features, "logits": self.network.head(features)}
        return tuple(layers[name] for name in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """List the layers."""
        return CLASSIFIER_LAYERS

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Name the layer that a torch-fidelity metric uses."""
        return {"isc": "logits", "fid": "features", "kid": "features", "prc": "features"}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        """Return False: the network is too small to gain."""
        return False


class ClassifierNetwork(nn.Module):
    """Pairs of 3x3 convolutions, the side halved between them until it is at most 4 pixels; then the average
    position.

    Args:
        channels: of the images.
        side: of the images, in pixels.
        classes: number of logits.
    """

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        small = side <= 16
        layers: list[nn.Module] = []
        width, out = channels, 32 if small else 16
        while side > 4 and out <= 128:
            layers += [*_convolution(width, out), *_convolution(out, out), nn.MaxPool2d(2)]
            width, out, side = out, 2 * out, side // 2
        layers += [
            *_convolution(width, out),
            *_convolution(out, FEATURE_WIDTH),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURE_WIDTH, classes)
        if not small:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # a quarter faster

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[n, classes]`` of images in [-1, 1]."""
        return self.head(self.trunk(x))


@dataclass(frozen=True)
class ClassifierMetadata:
    """What a classifier's file says about it; ``train_digest`` and ``test_digest`` identify its data."""

    data: str
    train_digest: str
    test_digest: str
    channels: int
    side: int
    classes: tuple[int, ...]
    seed: int
    recipe: int
    test_accuracy: float
    n_test: int


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that gives features and logits of images, with what a number's caption must say of it.

    Attributes:
        name: as registered with torch-fidelity; `INCEPTION` or ``<data set>-classifier``.
        weights_path: file to be given to torch-fidelity as ``feature_extractor_weights_path``.
        weights_digest: 12 hexadecimal digits of the parameters, whatever file they came from.
        feature_layer: layer of distances.
        logits_layer: layer of the score.
        test_accuracy: share of the data set's test images that a classifier gets right; NaN for Inception.
        n_test: number of those test images; 0 for Inception.
        channels: that the network takes.
        width: number of features.
        resize: what the network does to the images' size.
        batch_size: images per pass that use at most about 1 GB.
        module: the network, ``uint8 images -> (features, logits)``.
        runtime: where it runs; its processes share the work.
    """

    name: str
    weights_path: Path
    weights_digest: str
    feature_layer: str
    logits_layer: str
    test_accuracy: float
    n_test: int
    channels: int
    width: int
    resize: str
    batch_size: int
    module: Callable[[Tensor], tuple[Tensor, ...]]
    runtime: Runtime

    @property
    def is_inception(self) -> bool:
        """Whether numbers made with it may be called FID and Inception score."""
        return self.name == INCEPTION

    def extract(
        self, images: Images, *, batch_size: int | None = None, progress: Progress = silent
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Yield features ``[batch, width]`` and logits ``[batch, classes]`` of all images, in order, on every
        process.
        """
        batch_size = batch_size or self.batch_size
        done = 0
        for features, logits in self.runtime.all_gather(
            range(0, len(images), batch_size), partial(self._batch, images, batch_size)
        ):
            yield features, logits
            done += len(features)
            progress("features", done, len(images))

    def _batch(
        self, images: Images, batch_size: int, first: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        index = np.arange(first, min(first + batch_size, len(images)))
        batch = torch.from_numpy(images.take(index)).to(self.runtime.device)
        with torch.inference_mode():
            features, logits = self.module(match_channels(batch, self.channels))
        return features.cpu().numpy(), logits.cpu().numpy()


def match_channels(images: Tensor, channels: int) -> Tensor:
    """Give images the number of channels a network takes.

    Grayscale is repeated to three equal channels (as torch-fidelity does when it reads a file); three equal
    channels count as grayscale.

    Raises:
        ValueError: if coloured images meet a grayscale network.
    """
    found = images.shape[1]
    if found == channels:
        return images
    if (found, channels) == (1, 3):
        return images.expand(-1, 3, -1, -1)
    if (found, channels) == (3, 1) and torch.equal(images[:, :1].expand_as(images), images):
        return images[:, :1]
    kind = "coloured" if found == 3 else f"{found}-channel"
    raise ValueError(
        f"the images are {kind}, but the network takes {channels} channel(s) (images of another data set?)"
    )


def classifier(
    train: ImageSet,
    test: ImageSet,
    cache: Path,
    *,
    seed: int = 0,
    runtime: Runtime = ALONE,
    progress: Progress = silent,
) -> Extractor:
    """Return the data set's classifier, trained on its labels unless ``cache`` already holds it.

    Args:
        train: images with labels to train on.
        test: images with labels for the reported accuracy.
        cache: folder of trained classifiers; created if needed.
        seed: of initialisation, order and shifts.
        runtime: where it is trained (by one process) and runs.
        progress: called while it trains.

    Raises:
        ValueError: if labels are absent, or the test set has classes that the training set lacks.
    """
    path = classifier_path(train, test, cache, seed=seed)
    if runtime.main and not path.exists():
        _write_classifier(path, *_train_classifier(train, test, seed, runtime.device, progress))
    runtime.barrier()
    return load_classifier(path, runtime=runtime)


def classifier_path(train: ImageSet, test: ImageSet, cache: Path, *, seed: int) -> Path:
    """Return the file of a data set's classifier; its name depends on all that the weights depend on."""
    key = hashlib.sha256(f"{train.digest} {test.digest} {seed} {RECIPE}".encode()).hexdigest()[:12]
    return cache / f"{classifier_name(train.name)}-{key}.safetensors"


def classifier_name(data: str) -> str:
    """Return the registered name of a data set's classifier: ``digits-classifier``; of ``npz:a/b.npz``,
    ``b-classifier``.
    """
    own = Path(data.split(":", 1)[-1]).stem
    return f"{re.sub('[^a-z0-9]+', '-', own.lower()).strip('-')}-classifier"


def load_classifier(path: Path, *, runtime: Runtime = ALONE) -> Extractor:
    """Load a classifier written by `classifier`, registering it with torch-fidelity.

    Raises:
        ValueError: if the file is none.
    """
    facts = _read_classifier(path)[1]
    name = classifier_name(facts.data)
    if name not in FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor(name, DatasetClassifier)
    module = DatasetClassifier(name, CLASSIFIER_LAYERS, feature_extractor_weights_path=str(path)).to(
        runtime.device
    )
    return Extractor(
        name=name,
        weights_path=path,
        weights_digest=_digest(module.state_dict()),
        feature_layer="features",
        logits_layer="logits",
        test_accuracy=facts.test_accuracy,
        n_test=facts.n_test,
        channels=facts.channels,
        width=FEATURE_WIDTH,
        resize="none",
        batch_size=256,
        module=module,
        runtime=runtime,
    )


def inception(
    weights: Path | None = None, *, logits_layer: str = "logits_unbiased", runtime: Runtime = ALONE
) -> Extractor:
    """Return torch-fidelity's Inception network, the only one whose numbers are called FID and Inception
    score.

    The file is read without executing pickled code, whatever it claims to be.

    Args:
        weights: file in torch-fidelity's or pytorch-fid's layout (.pth or .safetensors); None downloads
            torch-fidelity's file into torch's cache and verifies its checksum.
        logits_layer: ``logits_unbiased`` (without the last layer's bias, as the paper's score) or ``logits``.
        runtime: where it runs.

    Raises:
        ValueError: if the file is missing, or holds another network.
    """
    path = download_inception() if weights is None else weights
    state = _read_tensors(path)
    module = _build_inception(state, path, (INCEPTION_LAYERS[0], logits_layer)).to(runtime.device)
    return Extractor(
        name=INCEPTION,
        weights_path=path,
        weights_digest=_digest(module.state_dict()),
        feature_layer=INCEPTION_LAYERS[0],
        logits_layer=logits_layer,
        test_accuracy=float("nan"),
        n_test=0,
        channels=3,
        width=2048,
        resize="299x299, bilinear as in TensorFlow 1",
        batch_size=64,
        module=module,
        runtime=runtime,
    )


def _convolution(width: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]


@dataclass(frozen=True)
class _Recipe:
    steps: int
    batch_size: int
    max_shift: int
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2


def _recipe(train: ImageSet) -> _Recipe:
    """Twenty passes over a small set, at most 2,000 updates of a larger one; shifts of up to a sixteenth of
    the side.
    """
    batch_size = 64 if len(train) < 10_000 else 128
    steps = min(20 * max(1, len(train) // batch_size), 2000)
    return _Recipe(steps, batch_size, max_shift=max(1, train.side // 16))


def _train_classifier(
    train: ImageSet, test: ImageSet, seed: int, device: torch.device, progress: Progress
) -> tuple[dict[str, Tensor], ClassifierMetadata]:
    classes, targets = _targets(train)
    recipe = _recipe(train)
    with global_seed(derive_seed(seed, RECIPE), torch.device("cpu")):
        network = ClassifierNetwork(train.channels, train.side, len(classes)).to(device)
    optimiser = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.steps)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        for step, (x, index) in enumerate(
            _batches(train, recipe, torch.Generator().manual_seed(seed)), start=1
        ):
            loss = F.cross_entropy(network(x.to(device)), targets[index].to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            progress("classifier", step, recipe.steps)
        accuracy = _accuracy(network.eval(), test, classes, device)
    facts = ClassifierMetadata(
        train.name,
        train.digest,
        test.digest,
        train.channels,
        train.side,
        classes,
        seed,
        RECIPE,
        accuracy,
        len(test),
    )
    return network.state_dict(), facts


def _targets(train: ImageSet) -> tuple[tuple[int, ...], Tensor]:
    """Return the sorted classes of a set and each image's index among them."""
    if train.labels is None:
        raise ValueError(
            f"{train.name} has no labels, which a classifier needs (give --inception-weights to measure with Inception instead)"
        )
    classes, targets = np.unique(train.labels, return_inverse=True)
    if len(classes) < 2 or len(train) < 64:
        raise ValueError(
            f"{train.name} has {len(train)} images of {len(classes)} classes: too few to train a classifier on"
        )
    return tuple(classes.tolist()), torch.from_numpy(targets)


def _batches(train: ImageSet, recipe: _Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``steps`` shuffled batches in [-1, 1], each shifted as a whole by a few pixels, and their
    positions.
    """
    order = torch.randperm(len(train), generator=generator)
    for _ in range(recipe.steps):
        if len(order) < recipe.batch_size:
            order = torch.randperm(len(train), generator=generator)
        index, order = order[: recipe.batch_size], order[recipe.batch_size :]
        x = to_model_range(torch.from_numpy(train.take(index.numpy())))
        top, left = torch.randint(2 * recipe.max_shift + 1, (2,), generator=generator).tolist()
        x = F.pad(x, (recipe.max_shift,) * 4, value=-1.0)[
            :, :, top : top + train.side, left : left + train.side
        ]
        yield x, index


def _accuracy(network: nn.Module, test: ImageSet, classes: tuple[int, ...], device: torch.device) -> float:
    if test.labels is None or not set(test.labels.tolist()) <= set(classes):
        raise ValueError(
            f"the test images of {test.name} have no labels, or classes that its training images lack"
        )
    correct = 0
    for first in range(0, len(test), 500):
        index = np.arange(first, min(first + 500, len(test)))
        with torch.inference_mode():
            logits = network(to_model_range(torch.from_numpy(test.take(index))).to(device))
        correct += int((np.array(classes)[logits.argmax(1).cpu().numpy()] == test.labels[index]).sum())
    return correct / len(test)


def _write_classifier(path: Path, weights: dict[str, Tensor], facts: ClassifierMetadata) -> None:
    write_tensors(path, weights, {"kind": "dataset-classifier", "facts": json.dumps(facts.__dict__)})


def _read_classifier(path: Path) -> tuple[dict[str, Tensor], ClassifierMetadata]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file (truncated? delete it to train again): {error}"
        ) from None
    if metadata.get("kind") != "dataset-classifier":
        raise ValueError(f"{path} holds weights of another network, not a data set's classifier")
    facts = ClassifierMetadata(**json.loads(metadata["facts"]))
    if facts.recipe != RECIPE:
        raise ValueError(
            f"{path} is a classifier of recipe {facts.recipe}, this program's is {RECIPE} (delete it to train again)"
        )
    return weights, replace(facts, classes=tuple(facts.classes))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a .pth (without executing pickled code) or .safetensors file."""
    if not path.is_file():
        raise ValueError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is not a plain file of weights (truncated, or a pickled program?): {first}"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"{path} holds no table of named tensors (a whole checkpoint instead of a state_dict?)"
        )
    return dict(state)


def _build_inception(state: dict[str, Tensor], path: Path, layers: tuple[str, ...]) -> nn.Module:
    """Build the network through a clean copy of the weights, since torch-fidelity unpickles whatever file it
    is given.
    """
    state = {name: value for name, value in state.items() if not name.startswith("AuxLogits.")}
    for name in [n for n in state if n.endswith("running_mean")]:  # counters that pytorch-fid's file lacks
        state.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    with tempfile.TemporaryDirectory() as folder, global_seed(0, torch.device("cpu")):
        clean = Path(folder) / "inception.pth"
        torch.save(state, clean)
        try:
            return torch_fidelity.FeatureExtractorInceptionV3(
                INCEPTION, list(layers), feature_extractor_weights_path=str(clean)
            )
        except RuntimeError as error:
            raise ValueError(
                f"{path} holds weights of another network than Inception v3 (FID's, of 2015-12-05, with 1008 classes): "
                f"{_first_difference(error)}"
            ) from None


def _first_difference(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return lines[1][:160] if len(lines) > 1 else lines[0][:160]


def download_inception() -> Path:
    """Download torch-fidelity's file into torch's cache (with progress) unless it is there; verify the name's
    checksum.

    Raises:
        ValueError: if it cannot be downloaded, or the checksum is wrong.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[1]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        checksum = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
        assert checksum, "torch-fidelity's weights are no longer named by their checksum"
        try:
            torch.hub.download_url_to_file(
                URL_INCEPTION_V3, str(path), hash_prefix=checksum[1], progress=True
            )
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"the Inception weights cannot be downloaded ({error}): get {URL_INCEPTION_V3} by other means and give it as "
                "--inception-weights FILE"
            ) from None
    return path


def _digest(state: dict[str, Tensor]) -> str:
    content = hashlib.sha256()
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):
            content.update(name.encode())
            content.update(np.ascontiguousarray(state[name].cpu().numpy()).data)
    return content.hexdigest()[:12]
