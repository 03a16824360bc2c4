"""Random options and values for every command: it is done, or refused in one sentence with exit code 2."""

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import cli
from ddpm_eval.spec import DataSpec, DiffusionSpec, EvaluationSpec, NetworkSpec, TrainSpec

CALLS = int(os.environ.get("DDPM_EVAL_RANDOM_CALLS", "150"))
"""Random calls of commands; 150 take six seconds."""
PARTS = {
    "data": DataSpec,
    "network": NetworkSpec,
    "diffusion": DiffusionSpec,
    "train": TrainSpec,
    "evaluation": EvaluationSpec,
}
NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "3.5",
    "nan",
    "inf",
    "1e999",
    "-0",
    "9" * 30,
    "0x10",
    "1_000",
    "",
    " 7",
    "ten",
]
WORDS = [
    "",
    " ",
    "..",
    "é",
    "<script>",
    "$x^$",
    "a|b",
    "two\nlines",
    "x" * 5000,
    "%s",
    "{}",
    "--help",
    "[" * 999,
]
VALUES = [*NUMBERS, *WORDS, "[1]", "[-1]", "[1, [2]]", "null", "true", "{}", '"eps"', "mu", "vlb", "learned"]
WORK = [
    "ddpm_eval.training.loop.train",
    "ddpm_eval.stages.shared_work.SharedWork.map",
    "ddpm_eval.stages.quality_stages.load_or_train_classifier",
    "ddpm_eval.reporting.page.write_report",
    "experiments.image_quality.load_or_train_classifier",
    "experiments.image_quality.load_embedding",
    "experiments.image_quality.load_inception",
    "experiments.perform.run_all",
    "experiments.validate.validation_rows",
]
"""What takes long; here it begins with a refusal."""
COMMANDS = {name: cli.main.get_command(click.Context(cli.main), name) for name in cli.COMMANDS}


def begin(*arguments, **options):
    raise ValueError("the work would begin now")


def keys(name, model):
    return [f"{name}.{field}" for field in model.model_fields] if issubclass(model, BaseModel) else []


SETTINGS = ["seed", "preset", "train", "train.stepz", "", *(k for n, m in PARTS.items() for k in keys(n, m))]


def words(parameter, places):
    """Return a strategy of the words that fill a parameter."""
    if isinstance(parameter.type, click.Choice):
        values = st.sampled_from([*parameter.type.choices, *parameter.type.choices, *WORDS])
    elif parameter.metavar == "KEY=VALUE":
        pairs = st.tuples(st.sampled_from(SETTINGS), st.sampled_from(VALUES)).map("=".join)
        values = st.one_of(pairs, pairs, st.sampled_from(VALUES))
    elif isinstance(parameter.type, click.Path):
        values = st.sampled_from([*places, *places, *WORDS])
    elif isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType):
        values = st.sampled_from([*NUMBERS, "1", "2", "5"])
    else:
        values = st.sampled_from(["digits", "photos", "cpu", "cuda", "json:loads", "npz:/no", *VALUES])
    if isinstance(parameter, click.Argument):
        return values.map(lambda value: [value])
    flags = [*parameter.opts, *parameter.secondary_opts]
    if parameter.is_flag:
        return st.sampled_from(flags).map(lambda flag: [flag])
    return st.tuples(st.sampled_from(flags), values).map(list)


@st.composite
def calls(draw, places):
    name = draw(st.sampled_from(list(COMMANDS)))
    known = COMMANDS[name].params
    chosen = draw(st.lists(st.sampled_from(known), max_size=5, unique=True)) if known else []
    given = [word for parameter in chosen for word in draw(words(parameter, places))]
    return [name, *given]


@pytest.mark.slow
def test_whatever_is_asked_for_is_done_or_refused_in_one_sentence(trained_run, tmp_path, monkeypatch):
    for place in WORK:
        monkeypatch.setattr(place, begin)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    places = [str(place) for place in (trained_run, tmp_path / "file", tmp_path / "missing", tmp_path)]
    refused = 0

    @settings(
        max_examples=CALLS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(calls(places))
    def check(call):
        nonlocal refused
        result = CliRunner().invoke(cli.main, call)
        assert result.exit_code in (0, 2), (call, result.output[-500:], result.exception)
        assert "Traceback" not in result.output
        if result.exit_code == 2:
            refused += 1
            sentence = result.output.rpartition("Error: ")[2]
            assert sentence.strip() and "\n" not in sentence.strip(), (call, sentence[-500:])

    check()
    assert CALLS / 5 < refused < CALLS  # both outcomes were met


def test_the_work_that_is_left_out_exists():
    """The places are those that the commands use."""
    for place in WORK:
        module = place.rpartition(".")[0]
        assert Path(*module.split(".")).with_suffix(".py").exists() or module.endswith("SharedWork")
