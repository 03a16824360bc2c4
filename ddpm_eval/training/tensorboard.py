"""The curves of a training as TensorBoard event files.

Values are means over the updates since the last call, at the step of the last of them. A resumed training
discards what was written beyond the checkpoint that it starts from, so that it continues the same curves. The
package tensorboard is optional.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ddpm_eval.results.fields import Array
from ddpm_eval.training.loop import CHECK_STEPS
from ddpm_eval.training.trainer import Trainer

FOLDER = "tensorboard"
"""The name of the folder of event files in a run's folder."""


class TensorBoard:
    """Writes loss, gradient norm, learning rate and images per second.

    It is a `ddpm_eval.training.loop.Callback`.

    Args:
        folder: the folder of the event files; the main process creates it with the first of them.

    Raises:
        ValueError: if the package tensorboard is missing.
    """

    every = CHECK_STEPS

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # the package is optional
        except ImportError:
            raise ValueError(
                "--log tensorboard needs the tensorboard package (pip install 'ddpm_eval[log]')"
            ) from None
        self.open = partial(SummaryWriter, str(folder))
        self.writer: SummaryWriter | None = None
        self.step = 0
        self.seconds = 0.0

    def __call__(self, trainer: Trainer) -> None:
        """Write what happened since the last call; the first call only opens the file."""
        if not trainer.runtime.main:
            return
        if self.writer is None:
            self.writer = self.open(purge_step=trainer.step + 1)
        else:
            self._write(trainer)
        self.step = trainer.step
        self.seconds = trainer.seconds

    def show(self, step: int, values: Mapping[str, float], images: Mapping[str, Array]) -> None:
        """Write scalars and images (uint8 ``[row, column, 3]``) by name at one step, on the main process."""
        assert self.writer is not None
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        for name, image in images.items():
            self.writer.add_image(name, image, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()

    def _write(self, trainer: Trainer) -> None:
        loss, norm = trainer.log[:, self.step : trainer.step].mean(1).tolist()
        images = (trainer.step - self.step) * trainer.spec.train.batch_size
        values = {
            "train/loss": loss,
            "train/gradient_norm": norm,
            "train/learning_rate": trainer.optimizer.param_groups[0]["lr"],
            "train/images_per_second": images / (trainer.seconds - self.seconds),
        }
        self.show(trainer.step, values, {})
