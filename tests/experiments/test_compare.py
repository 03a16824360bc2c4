"""Which runs may be compared, and by which names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import HERE, digits, tiny

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.stages.run import Run
from ddpm_eval.training.checkpoint import FILE_NAME
from experiments.compare import ComparisonOptions, check_comparable, folders_of, names_of

OPTIONS = ComparisonOptions("test", PROTOCOLS["paper"], "full")


def run(**settings):
    return Run(Path("nowhere"), tiny(**settings), HERE)


def refusal(first, second, options=OPTIONS):
    with pytest.raises(ValueError) as error:
        check_comparable({"a": first, "b": second}, options)
    return str(error.value)


def test_runs_are_named_by_the_shortest_ends_of_their_paths():
    assert names_of([Path("runs/digits/one"), Path("runs/digits/two")]) == ["one", "two"]
    assert names_of([Path("/x/one/run"), Path("/x/two/run"), Path("/y/two/other")]) == [
        *("one/run", "two/run", "two/other")
    ]
    with pytest.raises(ValueError, match="named twice: a run does not differ from itself"):
        names_of([Path("one"), Path("two"), Path("./one/")])
    for few in ([], [Path("one")]):
        with pytest.raises(ValueError, match=f"two RUNs or more, not {len(few)}"):
            names_of(few)


def test_a_checkpoint_stands_for_its_folder_and_no_other_file_does(tmp_path):
    for name in (FILE_NAME, "step-600.safetensors"):
        (tmp_path / name).touch()
    assert folders_of([tmp_path / FILE_NAME, tmp_path / "other"]) == [tmp_path, tmp_path / "other"]
    with pytest.raises(ValueError, match=r"step-600.safetensors is a file: a RUN is a folder"):
        folders_of([tmp_path / "step-600.safetensors"])


def test_runs_of_other_images_or_steps_are_refused_by_what_differs():
    assert refusal(run(), run(diffusion__timesteps=10)) == (
        "b and a cannot be compared: they differ in T (10 and 20)"
    )
    assert "in the shape of their images (photos has 3x8x8 and digits has 1x8x8)" in refusal(
        run(), run(data__name="photos", data__channels=3)
    )


def write_npz(path, train_from=0, test_from=0):
    """Write the digits but for the first few of each split; return the name of the data set."""
    arrays = {}
    for split, first in (("train", train_from), ("test", test_from)):
        arrays[f"x_{split}"], arrays[f"y_{split}"] = digits(split).array[first:], digits(split).labels[first:]
    np.savez(path, **arrays)
    return f"npz:{path}"


def test_images_count_by_their_content(tmp_path):
    one, copy = (run(data__name=write_npz(tmp_path / f"{name}.npz")) for name in ("one", "copy"))
    fewer = run(data__name=write_npz(tmp_path / "fewer.npz", test_from=1))
    trained = run(data__name=write_npz(tmp_path / "trained.npz", train_from=1))
    check_comparable({"a": one, "b": copy}, OPTIONS)
    assert "they differ in their test images (npz:" in refusal(one, fewer)
    assert "they differ in their train images (npz:" in refusal(one, trained)
    check_comparable({"a": one, "b": trained}, replace(OPTIONS, quality=False))
