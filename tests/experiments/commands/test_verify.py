"""``verify`` finds what is damaged in each kind of a run's files; ``--repair`` drops just that."""

import json
import shutil

import h5py
from command_line import SETTINGS, call, main_run, refuse

from ddpm_eval.results.store import Store


def flip(path, place):
    """Change a byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.unlink()
    path.write_bytes(content)


def place_of(path, name):
    """Return where the first chunk of a result's images lies in a results file."""
    with h5py.File(path) as file:
        (group,) = file[name].values()
        return group["images"].id.get_chunk_info(0).byte_offset + 20


def test_an_intact_run_is_said_to_be(trained_run, classifier):
    output = call("verify", trained_run)
    lines = output.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["intact"] * 3
    assert "checkpoint.safetensors: 12 updates, weights " in lines[0]
    assert "results.h5: as it was written, 3 results" in lines[1]
    assert "digits-classifier, weights " in lines[2]
    assert lines[-1] == "Everything is as it was written."


def test_a_damaged_result_is_named_dropped_and_measured_again(trained_run):
    results = trained_run / "results.h5"
    before = Store(results).entries()
    samples = next(entry for entry in before if entry.name == "samples")
    flip(results, place_of(results, "samples"))
    assert "verify RUN --repair" in refuse("sample", trained_run)
    output = call("verify", trained_run, code=1)
    damaged = [line for line in output.splitlines() if line.startswith("DAMAGED")]
    assert len(damaged) == 2
    assert damaged[1].startswith(f"DAMAGED  {results}: samples/{samples.key}: the result is damaged")
    assert f"python cli.py verify {trained_run} --repair" in output.splitlines()[-1]

    output = call("verify", trained_run, "--repair")
    assert f"results.h5: kept 2 results, dropped samples/{samples.key}; as it was: results.h5.dam" in output
    assert {entry.name for entry in Store(results).entries()} == {"training", "schedule"}
    assert (trained_run / "results.h5.damaged").exists()
    call("verify", trained_run)
    call("sample", trained_run)
    assert [entry.name for entry in Store(results).entries()] == [entry.name for entry in before]


def test_a_damaged_checkpoint_classifier_and_item_are_set_aside(trained_run, classifier):
    (weights,) = classifier.glob("*.safetensors")
    item = trained_run / "partial" / "samples" / "samples" / "key" / "000000.h5"
    item.parent.mkdir(parents=True)
    item.write_bytes(b"ddpm_eval 3")
    statistics = classifier / "statistics.h5"
    statistics.write_bytes(b"ddpm_eval 3")
    for path in (trained_run / "checkpoint.safetensors", weights):
        flip(path, -30)
    damaged = [trained_run / "checkpoint.safetensors", item, weights, statistics]
    output = call("verify", trained_run, code=1)
    assert [line.split(":")[0] for line in output.splitlines() if line.startswith("DAMAGED")] == [
        f"DAMAGED  {path}" for path in damaged
    ]
    output = call("verify", trained_run, "--repair")
    for path in damaged:
        assert f"{path}: set aside as {path.name}.damaged" in output or path == statistics
        assert not path.exists() and path.with_name(f"{path.name}.damaged").exists()
    assert call("verify", trained_run).splitlines()[-1] == "Everything is as it was written."


def test_results_of_another_run_are_named_and_left_alone(trained_run, tmp_path):
    call("train", "--runs", tmp_path / "runs", "--seed", "1", "--preview-steps", "0", *SETTINGS)
    (other,) = (path for path in trained_run.parent.iterdir() if path != trained_run)
    shutil.copyfile(other / "results.h5", trained_run / "results.h5")
    content = (trained_run / "results.h5").read_bytes()
    for options in ([], ["--repair"]):
        output = call("verify", trained_run, *options, code=1)
        assert "it holds results of another run than checkpoint.safetensors (files of two runs exch" in output
        assert (trained_run / "results.h5").read_bytes() == content


def test_what_is_found_is_a_document_for_programs(trained_run):
    folder = {"folder": str(trained_run)}
    intact = json.loads(call("verify", trained_run, "--json"))
    assert (intact["command"], intact["run"], intact["intact"]) == ("verify", folder, True)
    assert [each["path"] for each in intact["findings"]] == [
        str(trained_run / name) for name in ("checkpoint.safetensors", "results.h5")
    ]
    assert intact["findings"][0]["text"].startswith("12 updates, weights ")
    flip(trained_run / "results.h5", place_of(trained_run / "results.h5", "samples"))
    damaged = json.loads(call("verify", trained_run, "--json", code=1))
    (result,) = [each["result"] for each in damaged["findings"] if each["result"] and not each["intact"]]
    assert result.startswith("samples/") and not damaged["intact"] and damaged["repaired"] == []
    repaired = json.loads(call("verify", trained_run, "--json", "--repair"))
    (said,) = repaired["repaired"]
    assert f"kept 2 results, dropped {result}" in said and repaired["intact"]


def test_a_folder_without_a_run_is_a_sentence(tmp_path):
    assert "holds neither a checkpoint nor results" in refuse("verify", tmp_path)
    assert "holds neither a checkpoint nor results" in refuse("verify", main_run(tmp_path))
