"""How a bound is computed: the choices that change a bits/dim figure without changing the model, by name.

The published figures follow protocol ``paper``; ``exact`` is the bound as it is defined. docs/protocol.md
explains each choice.
"""

from typing import Literal

from pydantic import Field

from ddpm_eval.spec import Decoder, Frozen

ProtocolVariance = Literal["trained", "fixed-large", "fixed-small", "learned", "learned-range", "optimal"]


class Protocol(Frozen):
    """How a bound is computed: the choices that change a bits/dim figure without changing the model.

    ``paper`` is what the authors' code does; ``exact`` is the bound as it is defined (see docs/protocol.md).

    Example:
        >>> ddpm_eval.Protocol(name="mine", variance="optimal", clip=True, decoder="exact").caption()
        'protocol mine: optimal variance, x_0 clipped, exact decoder, one draw'

    Attributes:
        name: of the protocol, which stands in captions.
        variance: of the reverse process: ``trained`` (the model's own), ``fixed-large``, ``fixed-small``,
            ``learned``, ``learned-range``, or ``optimal`` (the isotropic one that minimises the bound).
        clip: whether estimates of x_0 are clipped to [-1, 1] before the mean is formed; it does not apply to
            networks that predict mu.
        decoder: of the levels at t = 1: ``exact`` (the normal CDF) or ``tanh`` (the authors' approximation).
        draws: draws of the noise for each image and step.

    Raises:
        ValueError: if a choice does not exist.
    """

    name: str
    variance: ProtocolVariance = "trained"
    clip: bool = Field(
        description="x_0 estimates clipped to [-1, 1] before the mean is formed (not with mu prediction)"
    )
    decoder: Decoder
    draws: int = Field(default=1, ge=1, description="noise draws per image and step")

    def caption(self) -> str:
        """One phrase that says all of it."""
        clip = "x_0 clipped" if self.clip else "unclipped"
        draws = "one draw" if self.draws == 1 else f"{self.draws} draws"
        return f"protocol {self.name}: {self.variance} variance, {clip}, {self.decoder} decoder, {draws}"


PROTOCOLS = {
    "paper": Protocol(name="paper", clip=True, decoder="tanh"),
    "exact": Protocol(name="exact", clip=False, decoder="exact"),
}


def combine(
    base: Protocol,
    variance: ProtocolVariance | None = None,
    clip: bool | None = None,
    decoder: Decoder | None = None,
    draws: int | None = None,
) -> Protocol:
    """Return ``base`` with explicit choices, named after what differs, such as ``paper+fixed-small``."""
    changes = {"variance": variance, "clip": clip, "decoder": decoder, "draws": draws}
    kept = {key: value for key, value in changes.items() if value is not None and value != getattr(base, key)}
    words = {
        "clip": {True: "clip", False: "no-clip"}.get(clip or False),
        "decoder": f"{decoder}-decoder",
        "draws": f"{draws}-draws",
    }
    name = "+".join([base.name, *(str(words.get(key, value)) for key, value in kept.items())])
    return Protocol.model_validate({**base.model_dump(), **kept, "name": name})


CHAINS = (10, 20, 50, 100, 200, 500)
"""Lengths of the shorter chains whose bound is measured."""

SAMPLING_STEPS = (10, 20, 50, 100)
"""Numbers of steps at which samples are measured, beside all T of the ancestral sampler (those of Song et al.
2021).
"""

CHAIN_PROTOCOLS = tuple(
    combine(PROTOCOLS["paper"], variance=name) for name in ("fixed-large", "fixed-small", "optimal")
)

COMPARED = tuple(
    combine(base, variance=variance)
    for variance in ("trained", "fixed-small", "optimal")
    for base in PROTOCOLS.values()
)
"""The protocols under which one model is compared."""
