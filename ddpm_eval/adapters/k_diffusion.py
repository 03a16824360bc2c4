"""k-diffusion's denoisers as chains.

They are functions D(x, sigma), as in `ddpm_eval.adapters.edm`. Those of discrete models
(``DiscreteEpsDDPMDenoiser``, ``OpenAIDenoiser``, ``DiscreteVDDPMDenoiser``, ...) keep the levels of their own
chain, which is taken; for the others it is EDM's.

Source: github.com/crowsonkb/k-diffusion, external.py and layers.py.
"""

from torch import Tensor, nn

from ddpm_eval.adapters.edm import DenoiserAtLevels, edm_levels
from ddpm_eval.api.network_model import Model
from ddpm_eval.model.chains import chain_of_sigma
from ddpm_eval.spec import Variance


class WithClasses(nn.Module):
    """A denoiser whose classes are the argument of a name."""

    def __init__(self, denoiser: nn.Module, argument: str) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.argument = argument

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        """Return the estimate of x_0."""
        return self.denoiser(x, sigma, **{self.argument: y})


def from_k_diffusion(
    denoiser: nn.Module,
    *,
    sigma: Tensor | None = None,
    variance: Variance | Tensor = "fixed-small",
    shape: tuple[int, int, int] | None = None,
    class_argument: str | None = None,
) -> Model:
    """Return a denoiser of k-diffusion as a model.

    Example:
        >>> model = ddpm_eval.from_k_diffusion(denoiser, shape=(1, 8, 8))
        >>> ddpm_eval.sample(model, 2, method="ddim", num_steps=10, progress=False).images.shape
        (2, 1, 8, 8)

    Args:
        denoiser: any module with ``forward(x, sigma)`` that returns the estimate of x_0.
        sigma: levels of the chain, increasing, ``[T]``; None takes the denoiser's ``sigmas``, and EDM's if it
            has none.
        variance: of the reverse process; ``fixed-small`` is that of ``sample_euler_ancestral``. A learned
            variance is not passed on by k-diffusion.
        shape: channels, rows and columns of an image.
        class_argument: of a class-conditional denoiser the name of its argument for classes, such as
            ``class_cond``.

    Raises:
        ValueError: if the levels do not increase.
    """
    own = getattr(denoiser, "sigmas", None)
    levels = sigma if sigma is not None else own if isinstance(own, Tensor) else edm_levels()
    network = denoiser if class_argument is None else WithClasses(denoiser, class_argument)
    return Model(
        DenoiserAtLevels(network, levels),
        predicts="x0",
        variance=variance,
        schedule=chain_of_sigma(levels),
        conditional=class_argument is not None,
        shape=shape,
        clip_samples=False,
        verify_times=False,
    )
