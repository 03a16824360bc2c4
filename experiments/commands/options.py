"""How a command declares its arguments and options, and the groups of them that several commands share.

A command's parameters are the fields of a frozen dataclass. The annotation of a field holds its type and the
click parameter that fills it, which has the field's name: ``seed: Annotated[int, click.Option(["--seed"])]``.
Nothing here needs torch, so that reports are rendered without it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar, get_args, get_type_hints

import click

from ddpm_eval.protocol import PROTOCOLS

P = TypeVar("P")
PATH = click.Path(path_type=Path)
DEFAULT_RUNS = Path("runs")
DEFAULT_PRESET = "digits"


def command_with(parameters: type[P]) -> Callable[[Callable[[P], None]], click.Command]:
    """Return a decorator that makes a command of a function of its parameters; the docstring is its help."""

    def decorate(function: Callable[[P], None]) -> click.Command:
        def callback(**values: object) -> None:
            function(parameters(**values))

        text = inspect.getdoc(function) or ""
        text = text.replace(r"\b", "\b")  # click's mark of a paragraph that is not wrapped
        return click.Command(None, callback=callback, params=declared(parameters), help=text)

    return decorate


def declared(parameters: type) -> list[click.Parameter]:
    """Return the click parameters in the annotations of a dataclass's fields, those of its bases first."""
    hints = get_type_hints(parameters, include_extras=True)
    found = {name: get_args(hint)[1] for name, hint in hints.items()}
    for name, parameter in found.items():
        assert parameter.name == name, f"the field {name} is filled by {parameter.name}"
    return list(found.values())


def read_settings(context: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """Split texts such as ``train.steps=500`` at their first equals sign.

    Raises:
        ValueError: if a text has none.
    """
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise ValueError(f"{option.opts[0]} takes KEY=VALUE, not {pair!r} ({option.help})")
        found[key] = value
    return found


def refuse_beside_run(run: Path, options: Mapping[str, object]) -> None:
    """Refuse options that say which run is meant beside a run that was named.

    Raises:
        ValueError: if one of the options, by name, is not None.
    """
    named = [f"--{name}" for name, value in options.items() if value is not None]
    if named:
        raise ValueError(f"name a RUN or {' '.join(named)}, not both: {run} says what it is")


def figure_stem(path: Path) -> Path:
    """Return the path of a figure without the suffix of one of its files."""
    return path.with_suffix("") if path.suffix in (".png", ".pdf") else path


def settings_option(meaning: str) -> click.Option:
    """Return the option ``--set``, which fills the field ``settings``."""
    names = ["--set", "settings"]
    return click.Option(names, multiple=True, metavar="KEY=VALUE", callback=read_settings, help=meaning)


RunFolder = Annotated[Path | None, click.Argument(["run"], required=False, type=PATH)]
Runs = Annotated[
    Path | None, click.Option(["--runs"], type=PATH, show_default="runs", help="Folder of the runs.")
]
DataRoot = Annotated[
    Path | None, click.Option(["--data-root"], type=PATH, help="Where data sets lie (default .data).")
]
Device = Annotated[
    str, click.Option(["--device"], default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
]
Reports = Annotated[
    Path,
    click.Option(
        ["--reports"], type=PATH, default="reports", show_default=True, help="Folder of the reports."
    ),
]
InceptionWeights = Annotated[
    Path | None,
    click.Option(
        ["--inception-weights"],
        type=PATH,
        help="Measure quality with this Inception instead of the classifier.",
    ),
]
Split = Annotated[
    str, click.Option(["--split"], type=click.Choice(["test", "train"]), default="test", show_default=True)
]
ProtocolName = Annotated[
    str,
    click.Option(
        ["--protocol"],
        type=click.Choice(list(PROTOCOLS)),
        default="paper",
        show_default=True,
        help="See docs/protocol.md.",
    ),
]
Seeds = Annotated[
    int | None,
    click.Option(
        ["--seeds"],
        type=click.IntRange(1),
        show_default="1",
        help="Trainings of each model, with seeds from --seed on, over which results are judged.",
    ),
]
DryRun = Annotated[
    bool,
    click.Option(
        ["--dry-run"],
        is_flag=True,
        help="Do nothing but print what would be done, and about how long it would take.",
    ),
]
Settings = Mapping[str, str]
NetworkName = Annotated[
    str | None,
    click.Option(
        ["--network"],
        metavar="MODULE:FUNCTION",
        help="Instead of RUN: the network, or ddpm_eval.Model, that this function returns (docs/network.md).",
    ),
]
NetworkArguments = Annotated[
    Settings,
    click.Option(
        ["--network-args", "network_arguments"],
        multiple=True,
        metavar="KEY=VALUE",
        callback=read_settings,
        help="An argument of that function, as JSON or plain text; repeatable.",
    ),
]
BatchSize = Annotated[
    int | None,
    click.Option(
        ["--batch-size"],
        type=click.IntRange(1),
        show_default="by the device",
        help="Images per call of the network; results change by rounding only.",
    ),
]
AsJson = Annotated[
    bool,
    click.Option(
        ["--json", "as_json"],
        is_flag=True,
        help="Print one JSON document on stdout, and all else on stderr.",
    ),
]


def refuse_lonely_arguments(network: str | None, arguments: Settings) -> None:
    """Refuse arguments of a function that is not named.

    Raises:
        ValueError: if there are some.
    """
    if network is None and arguments:
        raise ValueError("--network-args are given to the function of --network, but there is no --network")


def with_limit(settings: Settings, limit: int | None, *fields: str) -> Settings:
    """Return settings with fields of the evaluation set to the value of ``--limit``.

    Raises:
        ValueError: if one of them is set to another value.
    """
    if limit is None:
        return settings
    both = [field for field in fields if field in settings]
    if both:
        raise ValueError(f"--limit and --set {both[0]} say the same: leave one of them out")
    return {**settings, **dict.fromkeys(fields, str(limit))}


def bound_limits(*splits: str) -> tuple[str, ...]:
    """Return the fields that say of how many images of the splits bounds are evaluated."""
    return (*(f"evaluation.n_{split}_images" for split in splits), "evaluation.n_full_images")


def limit_option(what: str) -> click.Option:
    """Return the option ``--limit``, which says of how many images or samples there are results.

    Args:
        what: it limits, for the help.
    """
    return click.Option(
        ["--limit"],
        type=click.IntRange(2),
        help=f"Measure only so many {what}; each number has results of its own.",
    )


@dataclass(frozen=True)
class StudyParameters:
    """Which runs are meant: those of a preset, or one that is named by its folder."""

    run: RunFolder
    preset: Annotated[
        str | None,
        click.Option(
            ["--preset"],
            help="Which experiment, instead of a RUN; see the command presets.",
        ),
    ]
    runs: Runs
    data: Annotated[
        str | None,
        click.Option(["--data"], help="Another data set: cifar10, mnist, npz:FILE, folder:DIR, ..."),
    ]
    data_root: DataRoot
    seed: Annotated[
        int | None,
        click.Option(["--seed"], type=click.IntRange(0), show_default="0", help="Of everything random."),
    ]
    device: Device
    settings: Annotated[Settings, settings_option("Any field of the specification; repeatable.")]

    @property
    def preset_options(self) -> dict[str, object]:
        """The options that say which runs of a preset are meant, by name."""
        return {"preset": self.preset, "runs": self.runs, "data": self.data, "seed": self.seed}


@dataclass(frozen=True)
class ReportParameters(StudyParameters):
    """A study and where its report is written."""

    reports: Reports


@dataclass(frozen=True)
class ExperimentParameters(ReportParameters):
    """A study that is to be measured and reported."""

    inception_weights: InceptionWeights
    network: NetworkName
    network_arguments: NetworkArguments
    batch_size: BatchSize
    as_json: AsJson
    dry_run: DryRun


@dataclass(frozen=True)
class ReplicatedParameters(ExperimentParameters):
    """An experiment that may be repeated with other seeds."""

    seeds: Seeds
