"""Protocols: a caption says every choice."""

from ddpm_eval.protocol import PROTOCOLS, Protocol


def test_captions_say_every_choice():
    assert (
        PROTOCOLS["paper"].caption()
        == "protocol paper: trained variance, x_0 clipped, tanh decoder, one draw"
    )
    assert (
        PROTOCOLS["exact"].caption() == "protocol exact: trained variance, unclipped, exact decoder, one draw"
    )
    custom = Protocol(name="mine", variance="fixed-small", clip=False, decoder="tanh", draws=3)
    assert custom.caption() == "protocol mine: fixed-small variance, unclipped, tanh decoder, 3 draws"
    assert Protocol.model_validate_json(custom.model_dump_json()) == custom
