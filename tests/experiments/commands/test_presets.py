"""``presets``: a row for each, with the parameters that the paper states."""

from command_line import call

from experiments.paper.presets import DEVIATIONS, NAMES


def test_every_preset_is_listed_with_its_parameters():
    output = call("presets")
    assert all(name in output for name in NAMES) and set(DEVIATIONS) == set(NAMES)
    assert "35,746,307" in output and "113,673,219" in output
