"""Train, sample and measure denoising diffusion probabilistic models (Ho, Jain, Abbeel, 2020).

    model = ddpm_eval.Model(network, predicts="eps", variance="fixed-large", schedule="linear")
    images = ddpm_eval.load_images("cifar10", "test")
    bound = ddpm_eval.evaluate_bound(model, images, target_halfwidth=0.01)
    bound.split()

Names are loaded when they are used: importing ddpm_eval imports neither torch nor pandas.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpm_eval.adapters.azula import from_azula as from_azula
    from ddpm_eval.adapters.diffusers import from_diffusers as from_diffusers
    from ddpm_eval.adapters.edm import from_edm as from_edm
    from ddpm_eval.adapters.guided_diffusion import from_guided_diffusion as from_guided_diffusion
    from ddpm_eval.adapters.k_diffusion import from_k_diffusion as from_k_diffusion
    from ddpm_eval.adapters.lucidrains import from_lucidrains as from_lucidrains
    from ddpm_eval.api.bounds import Bound as Bound
    from ddpm_eval.api.bounds import compare_bounds as compare_bounds
    from ddpm_eval.api.bounds import evaluate_bound as evaluate_bound
    from ddpm_eval.api.loading import load_images as load_images
    from ddpm_eval.api.loading import load_run as load_run
    from ddpm_eval.api.measured_quality import SampleQuality as SampleQuality
    from ddpm_eval.api.measured_quality import evaluate_quality as evaluate_quality
    from ddpm_eval.api.network_model import Model as Model
    from ddpm_eval.api.samples import sample as sample
    from ddpm_eval.data.image_set import ImageSet as ImageSet
    from ddpm_eval.metrics.bound import Estimator as Estimator
    from ddpm_eval.protocol import Protocol as Protocol

    __version__: str

_HOMES = {
    "Model": "ddpm_eval.api.network_model",
    "load_images": "ddpm_eval.api.loading",
    "load_run": "ddpm_eval.api.loading",
    "ImageSet": "ddpm_eval.data.image_set",
    "evaluate_bound": "ddpm_eval.api.bounds",
    "Estimator": "ddpm_eval.metrics.bound",
    "Protocol": "ddpm_eval.protocol",
    "Bound": "ddpm_eval.api.bounds",
    "sample": "ddpm_eval.api.samples",
    "evaluate_quality": "ddpm_eval.api.measured_quality",
    "SampleQuality": "ddpm_eval.api.measured_quality",
    "compare_bounds": "ddpm_eval.api.bounds",
    "from_diffusers": "ddpm_eval.adapters.diffusers",
    "from_lucidrains": "ddpm_eval.adapters.lucidrains",
    "from_k_diffusion": "ddpm_eval.adapters.k_diffusion",
    "from_azula": "ddpm_eval.adapters.azula",
    "from_edm": "ddpm_eval.adapters.edm",
    "from_guided_diffusion": "ddpm_eval.adapters.guided_diffusion",
}
"""The module of each public name."""

__all__ = [*_HOMES]


def __getattr__(name: str) -> object:
    """Load a public name, or the version."""
    if name == "__version__":
        from importlib.metadata import version  # takes 30 ms, and most do not ask

        return version("ddpm_eval")
    if name not in _HOMES:
        raise AttributeError(f"module 'ddpm_eval' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])
