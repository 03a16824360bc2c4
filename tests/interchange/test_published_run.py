"""A published run: what is kept of it, and that weights and card belong together."""

import shutil
from pathlib import Path

import pytest
import torch
from other_projects import run_spec, saved_run

from ddpm_eval.interchange.published_run import CARD, check_card, publish_run
from ddpm_eval.runtime import ALONE
from ddpm_eval.stages.run_folders import open_run
from ddpm_eval.training.checkpoint import FILE_NAME, load, load_network, weights_digest


@pytest.fixture
def published(tmp_path: Path) -> Path:
    saved_run(tmp_path / "run", run_spec("digits"))
    publish_run(tmp_path / "run", tmp_path / "published", "# A card\n")
    return tmp_path / "published"


def test_the_averaged_weights_and_the_log_are_kept_alone(published: Path) -> None:
    saved = load(published)
    assert {name.partition("/")[0] for name in saved.tensors} == {"ema", "log"}
    assert saved.metadata["status"] == "averaged" and saved.step == 1
    assert weights_digest(published) == weights_digest(published.parent / "run")
    for ours, theirs in zip(
        load_network(published)[1].parameters(),
        load_network(published.parent / "run")[1].parameters(),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    assert sorted(path.name for path in published.iterdir()) == [CARD, FILE_NAME]


def test_the_card_names_the_weights(published: Path) -> None:
    text = (published / CARD).read_text()
    assert text.startswith("---\nlicense: mit\n") and text.endswith("\n# A card\n")
    assert f"\nweights_digest: {weights_digest(published)}\n" in text
    assert open_run(published, ALONE).weights == weights_digest(published)


def test_a_run_without_its_card_is_refused(published: Path) -> None:
    (published / CARD).unlink()
    with pytest.raises(ValueError, match=r"is a published run, but its card README.md is missing"):
        open_run(published, ALONE)


def test_the_card_of_other_weights_is_refused(published: Path) -> None:
    card = published / CARD
    card.write_text(card.read_text().replace(weights_digest(published), "0" * 12))
    with pytest.raises(ValueError, match=r"is the card of 000000000000, but the weights beside it are"):
        check_card(published)
    card.write_text("# Nothing\n")
    with pytest.raises(ValueError, match="is the card of no weights, but"):
        check_card(published)


def test_a_run_in_training_needs_no_card(published: Path) -> None:
    check_card(published.parent / "run")


def test_what_is_there_is_not_overwritten(published: Path) -> None:
    with pytest.raises(ValueError, match="exists and is not an empty folder"):
        publish_run(published.parent / "run", published, "")
    shutil.rmtree(published)
    published.mkdir()
    publish_run(published.parent / "run", published, "")
    assert load(published).step == 1
