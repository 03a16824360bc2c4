"""How a run departs from the paper, and the names of the presets' folders."""

import pytest
from tiny import TINY

from ddpm_eval.spec_text import override
from experiments.paper.presets import (
    DEVIATIONS,
    NAMES,
    TABLE_2,
    against_the_paper,
    cell_name,
    preset,
    run_name,
)


def test_departures_from_the_paper_are_named():
    assert against_the_paper(preset("cifar10", seed=3)) == "as published"
    changed = {"train.steps": "300", "network.base_channels": "64"}
    assert against_the_paper(preset("cifar10", settings=changed)) == (
        "network.base_channels: 64, not 128; train.steps: 300, not 800000"
    )
    digits = against_the_paper(preset("digits", settings={"train.steps": "5"}))
    assert "0.16M parameters; train.steps: 5, not 1200" in digits
    assert against_the_paper(override(TINY, {"preset": "imported"})) == "another project's model"


def test_published_presets_train_on_l_with_the_authors_decoder_and_ours_with_the_exact_one():
    decoders = {name: preset(name).diffusion.training_decoder for name in NAMES}
    assert {name for name, decoder in decoders.items() if decoder == "tanh"} == {
        *("cifar10", "celebahq256", "lsun-bedroom256", "lsun-church256", "lsun-cat256"),
        "lsun-bedroom256-large",
    }
    on_l = preset("cifar10", settings={"diffusion.objective": "vlb"})
    assert on_l.training_digest() == preset("cifar10", TABLE_2[4]).training_digest()
    exact = override(on_l, {"diffusion.training_decoder": "exact"})
    assert against_the_paper(exact) == "diffusion.training_decoder: exact, not tanh"


def test_cifar10_tiny_draws_times_by_importance_where_it_trains_on_l():
    drawn = {cell.objective: preset("cifar10-tiny", cell).train.time_sampling for cell in TABLE_2}
    assert drawn == {"mse": "uniform", "vlb": "importance"}
    spec = preset("cifar10-tiny", TABLE_2[4])
    assert run_name(spec) == "eps-vlb-fixed-large"
    uniform = override(spec, {"train.time_sampling": "uniform"})
    assert "train.time_sampling: uniform, not importance" in against_the_paper(uniform)


def test_the_papers_model_has_the_digest_that_it_had_before_there_was_a_decoder_of_training():
    assert preset("cifar10").training_digest() == "602592108d45"


def test_every_preset_says_how_it_departs_from_the_paper():
    assert set(DEVIATIONS) == set(NAMES)


def test_a_folder_is_named_by_its_cell_and_by_what_is_not_the_presets():
    assert [run_name(preset("digits", cell)) for cell in TABLE_2] == [
        *("mu-vlb-learned", "mu-vlb-fixed-large", "mu-mse-fixed-large"),
        *("eps-vlb-learned", "eps-vlb-fixed-large", "eps-mse-fixed-large"),
    ]
    other = preset("digits", settings={"train.batch_size": "16"})
    assert run_name(other) == f"eps-mse-fixed-large-{other.training_digest()}"
    assert run_name(preset("digits", settings={"evaluation.n_samples": "9"})) == "eps-mse-fixed-large"
    assert run_name(preset("digits", seed=2)) == "eps-mse-fixed-large-seed-2"
    seeded = preset("digits", settings={"train.batch_size": "16"}, seed=2)
    assert run_name(seeded) == f"{run_name(other)}-seed-2"


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"there is no preset 'mnits' \(there are digits, "):
        preset("mnits")


def test_cells_are_named_as_in_table_2():
    assert [cell_name(cell) for cell in (TABLE_2[0], TABLE_2[2])] == ["mu, L, learned", "mu, MSE, fixed"]
