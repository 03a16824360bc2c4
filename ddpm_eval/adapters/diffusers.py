"""diffusers' pipelines of pixels: any network and any scheduler with betas.

The chain is computed in double precision from the scheduler's configuration, as the import of a checkpoint
does; where that names no schedule of this project (trained betas, zero terminal signal, sigmoid) it is
computed from the scheduler's float32 betas. Of the scheduler only the chain, the prediction, the variance and
the clipping count, not the sampler.

Source: github.com/huggingface/diffusers, schedulers/scheduling_ddpm.py, models/unets/unet_2d.py.
"""

from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel
from torch import Tensor, nn

from ddpm_eval.api.network_model import Model
from ddpm_eval.interchange.diffusers_format import SCHEDULES, VARIANCES
from ddpm_eval.model.chains import chain_of_beta
from ddpm_eval.model.diffusion import Predicted, Schedule, make_schedule
from ddpm_eval.spec import DiffusionSpec, Variance

T = TypeVar("T")
PREDICTIONS: dict[str, Predicted] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
NETWORKS = ("unet", "transformer")
"""Names of a pipeline's network."""
ENCODERS = ("vae", "vqvae", "movq")
"""Names of what turns pixels into latents."""


@runtime_checkable
class Scheduler(Protocol):
    """What a scheduler with betas is."""

    betas: Tensor
    config: Mapping[str, object]


@runtime_checkable
class ConfiguredNetwork(Protocol):
    """What a network of diffusers is, beside a module."""

    config: Mapping[str, object]


class SchedulerConfig(BaseModel):
    """The fields of a scheduler's configuration that count, with the defaults of diffusers."""

    prediction_type: str = "epsilon"
    beta_schedule: str = ""
    beta_start: float = 1e-4
    beta_end: float = 0.02
    trained_betas: object = None
    rescale_betas_zero_snr: bool = False
    variance_type: str | None = None
    clip_sample: bool = False
    clip_sample_range: float = 1.0


class UNetConfig(BaseModel):
    """The fields of a network's configuration that count, with the defaults of diffusers."""

    in_channels: int = 3
    out_channels: int | None = None
    sample_size: int | tuple[int, int] | None = None
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    cross_attention_dim: object = None


class DiffusersNetwork(nn.Module):
    """A network of diffusers as ``network(x_t, t)`` or ``network(x_t, t, y)``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, t: Tensor, *classes: Tensor) -> Tensor:
        """Return the network's prediction."""
        given = {"class_labels": classes[0]} if classes else {}
        output: Tensor = self.network(x_t, timestep=t, return_dict=False, **given)[0]
        return output


def from_diffusers(
    pipeline: object, scheduler: object = None, *, variance: Variance | Tensor | None = None
) -> Model:
    """Return a pipeline of diffusers, or a network and a scheduler, as a model.

    Example:
        >>> model = ddpm_eval.from_diffusers(pipeline)
        >>> model.predicts, model.variance, model.shape
        ('eps', 'fixed-small', (3, 8, 8))

    Args:
        pipeline: a pipeline with ``unet`` (or ``transformer``) and ``scheduler``, such as ``DDPMPipeline`` or
            ``DDIMPipeline``; with ``scheduler`` the network itself.
        scheduler: of the network.
        variance: of the reverse process; None takes the scheduler's ``variance_type``, which of a sampler
            without a variance is ``learned-range`` or ``fixed-small``, as the network's channels tell.

    Raises:
        ValueError: if the pipeline works on latents, or its network, scheduler, prediction or variance has no
            counterpart here; it is named.
    """
    if scheduler is None:
        _check_pixels(pipeline)
        scheduler = getattr(pipeline, "scheduler", None)
        networks = [getattr(pipeline, name, None) for name in NETWORKS]
        network = next((found for found in networks if found is not None), None)
    else:
        network = pipeline
    if not isinstance(network, nn.Module) or not isinstance(network, ConfiguredNetwork):
        raise ValueError(f"a {type(pipeline).__name__} is neither a pipeline nor a network of diffusers")
    if not isinstance(scheduler, Scheduler):
        raise ValueError(
            f"a {type(scheduler).__name__} has no betas: only chains of discrete times can be measured "
            "(DDPM, DDIM, PNDM, DPM-Solver, ...)"
        )
    chain = SchedulerConfig.model_validate(dict(scheduler.config))
    own = UNetConfig.model_validate(dict(network.config))
    return Model(
        DiffusersNetwork(network),
        predicts=_translate("prediction_type", chain.prediction_type, PREDICTIONS),
        variance=_variance(chain, own) if variance is None else variance,
        schedule=_schedule(chain, scheduler.betas),
        conditional=_is_conditional(own),
        shape=_shape(own),
        clip_samples=_clips(chain),
        verify_times=False,
    )


def _check_pixels(pipeline: object) -> None:
    encoder = next((name for name in ENCODERS if getattr(pipeline, name, None) is not None), None)
    if encoder is not None:
        raise ValueError(
            f"a {type(pipeline).__name__} diffuses the latents of its {encoder}: the bound of its chain is "
            "not one on pixels"
        )


def _schedule(config: SchedulerConfig, betas: Tensor) -> Schedule:
    name = SCHEDULES.get(config.beta_schedule)
    if name is None or config.trained_betas is not None or config.rescale_betas_zero_snr:
        return chain_of_beta(betas.double())
    fields = {"beta_start": config.beta_start, "beta_end": config.beta_end, "timesteps": len(betas)}
    return make_schedule(DiffusionSpec.model_validate({"schedule": name, **fields}))


def _variance(config: SchedulerConfig, network: UNetConfig) -> Variance:
    if config.variance_type is not None:
        names: Mapping[str, Variance] = VARIANCES  # type: ignore[assignment] # each is the name of one
        return _translate("variance_type", config.variance_type, names)
    return "learned-range" if network.out_channels == 2 * network.in_channels else "fixed-small"


def _is_conditional(network: UNetConfig) -> bool:
    """Tell whether the network takes classes; raise ValueError if it takes another condition."""
    if network.cross_attention_dim is not None or network.class_embed_type not in (None, "timestep"):
        raise ValueError(
            f"the network takes a condition other than a class (class_embed_type {network.class_embed_type}, "
            f"cross_attention_dim {network.cross_attention_dim}), which images do not come with"
        )
    return network.num_class_embeds is not None or network.class_embed_type == "timestep"


def _shape(network: UNetConfig) -> tuple[int, int, int] | None:
    size = network.sample_size
    if size is None:
        return None
    rows, columns = (size, size) if isinstance(size, int) else size
    return network.in_channels, rows, columns


def _clips(config: SchedulerConfig) -> bool:
    if config.clip_sample and config.clip_sample_range != 1:
        raise ValueError(f"clip_sample_range is {config.clip_sample_range:g}, but estimates are clipped to 1")
    return config.clip_sample


def _translate(field: str, value: str, names: Mapping[str, T]) -> T:
    if value not in names:
        raise ValueError(f"{field} is {value}, which has no counterpart here (allowed: {', '.join(names)})")
    return names[value]
