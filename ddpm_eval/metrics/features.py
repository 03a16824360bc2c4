"""Images to features: a network, and what the caption of its numbers must say of it.

Conventions: images are uint8 ``[n, channels, side, side]``; an extractor returns float32 features
``[n, width]`` and float32 logits ``[n, classes]``. Networks run in evaluation mode, so that an image's
features do not depend on its batch (to rounding). `ddpm_eval.metrics.inception` and
`ddpm_eval.metrics.classifier` make extractors.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddpm_eval.data.image_set import Images
from ddpm_eval.files import content_digest
from ddpm_eval.metrics.evaluation_memory import check_features
from ddpm_eval.runtime import Progress, Runtime, silent

Float32 = npt.NDArray[np.float32]

INCEPTION = "inception-v3-compat"
"""Name of the only extractor whose numbers are called FID and Inception score."""


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that computes features and logits of images, with what identifies it.

    Attributes:
        name: as registered with torch-fidelity; `INCEPTION` or ``<data set>-classifier``.
        weights_path: file to be given to torch-fidelity as ``feature_extractor_weights_path``.
        weights_digest: digest of the parameters, whatever file they came from.
        feature_layer: layer of the distances.
        logits_layer: layer of the score; empty for a network that does not classify.
        test_accuracy: share of the data set's test images that a classifier gets right; NaN for Inception.
        n_test: number of those test images; 0 for Inception.
        channels: channels of the images that the network takes.
        width: number of features.
        resize: what the network does to the images' size.
        batch_size: images per pass of the network; changing it changes features by rounding only.
        module: the network, which maps uint8 images to the tuple (features, logits).
        runtime: where the network runs; the runtime's processes share the work.
        classes: the data set's label of each logit of its classifier; None for other networks.
        kernel_width: sigma of the kernel distance's Gaussian kernel; None takes the polynomial one.
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
    classes: tuple[int, ...] | None = None
    kernel_width: float | None = None

    @property
    def has_logits(self) -> bool:
        """Whether the network classifies, so that there is a score."""
        return self.logits_layer != ""

    @property
    def is_inception(self) -> bool:
        """Whether numbers made with it may be called FID and Inception score."""
        return self.name == INCEPTION

    def extract(self, images: Images, *, progress: Progress = silent) -> Iterator[tuple[Float32, Float32]]:
        """Yield the features and the logits of all images, batch by batch in order, on every process.

        Args:
            images: uint8 ``[n, channels, side, side]``.
            progress: called after each batch.

        Raises:
            ValueError: if there is too little memory for a batch.
        """
        if len(images) > 1:
            check_features(
                self.name,
                min(self.batch_size, len(images)),
                lambda count: self._features(images, range(count)),
                self.runtime,
            )
        firsts = range(0, len(images), self.batch_size)
        done = 0
        for features, logits in self.runtime.all_gather(firsts, partial(self._batch, images)):
            yield features, logits
            done += len(features)
            progress("features", done, len(images))

    def _batch(self, images: Images, first: int) -> tuple[Float32, Float32]:
        return self._features(images, range(first, min(first + self.batch_size, len(images))))

    def _features(self, images: Images, which: range) -> tuple[Float32, Float32]:
        batch = torch.from_numpy(images.take(np.array(which))).to(self.runtime.device)
        with torch.inference_mode():
            features, logits = self.module(match_channels(batch, self.channels))
        return features.cpu().numpy(), logits.cpu().numpy()


def match_channels(images: Tensor, channels: int) -> Tensor:
    """Return images with the number of channels that a network takes.

    Grayscale images are repeated to three equal channels (as torch-fidelity does when it reads a file), and
    three equal channels count as grayscale.

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


def parameter_digest(state: Mapping[str, Tensor]) -> str:
    """Return the digest of a network's parameters, without its counters of batches."""
    parts: list[str | npt.NDArray[np.generic]] = []
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):
            parts += [name, state[name].cpu().numpy()]
    return content_digest(parts)
