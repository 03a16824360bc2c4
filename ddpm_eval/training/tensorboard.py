"""The curves of a training as TensorBoard event files.

Values are means over the updates since the last look, at the step of the last of them. A resumed training
discards what was written beyond the checkpoint it starts from, so that it continues the same curves. The
package tensorboard is optional.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_eval.results.records import Array
from ddpm_eval.training.loop import CHECK_STEPS, Trainer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"  # in the run's


class TensorBoard:
    """Writes loss, gradient norm, learning rate and images per second at each look (a
    `ddpm_eval.training.loop.Callback`).

    Args:
        folder: of the event files; made with the first of them, on the main process only.

    Raises:
        ValueError: if the package tensorboard is missing.
    """

    every = CHECK_STEPS

    def __init__(self, folder: Path) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise ValueError(
                "--log tensorboard needs the tensorboard package (pip install 'ddpm_eval[log]')"
            ) from None
        self.folder = folder
        self.writer: SummaryWriter | None = None
        self.step, self.seconds = 0, 0.0

    def __call__(self, trainer: Trainer) -> None:
        """Write what happened since the last look; the first call only opens the file."""
        if not trainer.runtime.main:
            return
        if self.writer is None:
            self._open(trainer.step)
        else:
            self._write(trainer)
        self.step, self.seconds = trainer.step, trainer.seconds

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

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1)

    def _write(self, trainer: Trainer) -> None:
        loss, norm = trainer.log[:, self.step : trainer.step].mean(1).tolist()
        updates, seconds = trainer.step - self.step, trainer.seconds - self.seconds
        values = {
            "train/loss": loss,
            "train/gradient_norm": norm,
            "train/learning_rate": trainer.optimizer.param_groups[0]["lr"],
            "train/images_per_second": updates * trainer.spec.train.batch_size / seconds,
        }
        self.show(trainer.step, values, {})
