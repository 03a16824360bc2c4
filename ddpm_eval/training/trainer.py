"""The state of a run in training, and one update: loss -> gradients -> Adam -> exponential moving average."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddpm_eval.model.diffusion import training_loss
from ddpm_eval.model.unet import UNet
from ddpm_eval.randomness import derive_seed
from ddpm_eval.runtime import Runtime, global_seed
from ddpm_eval.spec import RunSpec
from ddpm_eval.training.batches import DROPOUT, Batch
from ddpm_eval.training.build import build_network, trained_process
from ddpm_eval.training.checkpoint import Checkpoint

ADAM_STATE = ("exp_avg", "exp_avg_sq")
"""The optimiser's moments, as torch and checkpoints name them."""
LOG_UPDATES = 2**20
"""The most updates for which the log has room at first."""


class Trainer:
    """A run in training: its network, moving average, optimiser and log, all on the device.

    Args:
        spec: the run.
        runtime: where the run is trained.
        resume: a checkpoint of the same run to continue from, or None to begin.

    Attributes:
        step: the number of updates done.
        seconds: the time that they took, kept by the training loop.
        log: loss and gradient norm of each update, float32 ``[2, at least step]``; it grows in a long run.
        average: the moving averages of ``parameters``, in their order.
    """

    def __init__(self, spec: RunSpec, runtime: Runtime, resume: Checkpoint | None = None) -> None:
        self.spec = spec
        self.runtime = runtime
        self.network = runtime.place(build_network(spec, spec.seed), spec.unet.base_channels)
        self.parameters = list(self.network.parameters())
        self.values = [p.detach() for p in self.parameters]
        self.average = [p.clone() for p in self.values]
        self.optimizer = torch.optim.Adam(self.parameters, lr=spec.train.learning_rate, fused=True)
        self.log = torch.zeros(2, min(spec.train.steps, LOG_UPDATES), device=runtime.device)
        self.step = 0
        self.seconds = 0.0
        if resume is not None:
            self._restore(resume)
        module = runtime.compile(self.network)
        if runtime.world_size > 1:
            module = DistributedDataParallel(module)
        self.process = trained_process(spec, module, clip=False)

    def update(self, batch: Batch) -> None:
        """Take one optimisation step; nothing here waits for the device."""
        train = self.spec.train
        for group in self.optimizer.param_groups:
            group["lr"] = train.learning_rate * min(1.0, (self.step + 1) / max(train.warmup_steps, 1))
        diffusion = self.spec.diffusion
        with self.runtime.training_precision():
            losses = training_loss(
                self.process,
                diffusion.objective,
                batch.x_0,
                batch.t,
                batch.eps,
                diffusion.training_decoder,
            )
            loss = (batch.weight * losses).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, train.clip_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(self.average, self.values, 1 - train.ema_decay)
        if self.step == self.log.shape[1]:
            self.log = nn.functional.pad(self.log, (0, self.step))  # twice as long
        self.log[0, self.step] = loss.detach()
        self.log[1, self.step] = norm
        self.step += 1

    def seeded_update(self, batch: Batch) -> None:
        """Take one optimisation step with dropout drawn from (seed, step, process)."""
        if self.spec.unet.dropout == 0:
            return self.update(batch)
        seed = derive_seed(self.spec.seed, DROPOUT, self.step, self.runtime.rank)
        with global_seed(seed, self.runtime.device):
            return self.update(batch)

    def diverged_at(self, since: int) -> int | None:
        """Return the first update from ``since`` on whose loss or gradient norm is not finite.

        The log from there on is averaged over the processes first; all must call this.
        """
        logged = self.runtime.mean(self.log[:, since : self.step].clone())
        self.log[:, since : self.step] = logged
        not_finite = (~torch.isfinite(logged)).any(0).nonzero()
        return since + int(not_finite[0]) if len(not_finite) else None

    def averaged_network(self) -> UNet:
        """Return the network with the averaged weights, in evaluation mode.

        It shares its weights with the trainer, and follows them as training goes on.
        """
        names = [name for name, _ in self.network.named_parameters()]
        with torch.device("meta"):
            network = build_network(self.spec)
        network.load_state_dict(dict(zip(names, self.average, strict=True)), assign=True)
        return network.eval()

    def snapshot(self, status: str, reason: str) -> Checkpoint:
        """Return everything that resuming needs, on the CPU.

        Args:
            status: ``running``, ``ok``, ``stopped`` or ``diverged``.
            reason: when and how training stopped or diverged.
        """
        tensors = {"log/loss": self.log[0, : self.step], "log/gradient_norm": self.log[1, : self.step]}
        for (name, value), average in zip(self.network.named_parameters(), self.average, strict=True):
            tensors |= {f"model/{name}": value.detach(), f"ema/{name}": average}
            state = self.optimizer.state.get(value, {})
            tensors |= {f"adam/{key}/{name}": state[key] for key in ADAM_STATE if key in state}
        metadata: dict[str, str | float] = {
            "status": status,
            "reason": reason,
            "seconds": self.seconds,
            "threads": torch.get_num_threads(),
            "mixed_precision": self.runtime.mixed_precision,
            "device": self.runtime.describe(),
        }
        on_cpu = {key: value.cpu().contiguous() for key, value in tensors.items()}
        return Checkpoint(self.spec, self.step, on_cpu, metadata)

    def _restore(self, saved: Checkpoint) -> None:
        self.step = saved.step
        self.seconds = float(saved.metadata["seconds"])
        if self.step > self.log.shape[1]:
            self.log = torch.zeros(2, self.step, device=self.runtime.device)  # grows with the next update
        self.log[0, : self.step] = saved.tensors["log/loss"].to(self.log)
        self.log[1, : self.step] = saved.tensors["log/gradient_norm"].to(self.log)
        with torch.no_grad():
            for (name, value), average in zip(self.network.named_parameters(), self.average, strict=True):
                value.copy_(saved.tensors[f"model/{name}"])
                average.copy_(saved.tensors[f"ema/{name}"])
                if f"adam/exp_avg/{name}" in saved.tensors:
                    self.optimizer.state[value] = self._adam_state(name, value, saved)

    def _adam_state(self, name: str, value: Tensor, saved: Checkpoint) -> dict[str, Tensor]:
        state = {"step": torch.tensor(float(self.step), device=value.device)}
        for key in ADAM_STATE:
            state[key] = torch.empty_like(value).copy_(saved.tensors[f"adam/{key}/{name}"])
        return state
