"""Command line of ddpm_eval: parse, one call, print. Run ``python cli.py --help``."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

USER_ERROR, CHECK_FAILED, INTERRUPTED = 2, 1, 130
PRECISIONS = ("fp32", "tf32", "bf16")


class UserError(click.ClickException):
    """Something the user must change; one sentence, exit code 2."""

    exit_code = USER_ERROR


class Commands(click.Group):
    """Turns the library's errors into sentences."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise UserError(f"{error.strerror or error}{where}") from error
        except ValueError as error:
            raise UserError(str(error)) from error
        except KeyboardInterrupt:
            click.echo("\nStopped. Finished work is kept: the same command continues where it was.", err=True)
            ctx.exit(INTERRUPTED)


def _options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    return lambda function: functools.reduce(
        lambda f, decorator: decorator(f), reversed(decorators), function
    )


FOLDER, RUNS = click.Path(path_type=Path), Path("runs")
preset_options = _options(
    click.argument("run", required=False, type=FOLDER),
    click.option(
        "--preset", show_default="digits", help="Which experiment, instead of a RUN; see the command presets."
    ),
    click.option("--runs", type=FOLDER, show_default="runs", help="Folder of the runs."),
    click.option("--data", help="Another data set: cifar10, mnist, npz:FILE, folder:DIR, ..."),
    click.option("--data-root", type=FOLDER, help="Where data sets lie (default .data)."),
    click.option("--seed", type=click.IntRange(0), show_default="0", help="Of everything random."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any field of the specification; repeatable.",
    ),
)
report_options = _options(
    preset_options,
    click.option(
        "--reports", type=FOLDER, default="reports", show_default=True, help="Folder of the reports."
    ),
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print the resolved specifications and what is already stored."
)
workspace_options = _options(
    report_options,
    click.option(
        "--inception-weights",
        type=FOLDER,
        help="Measure quality with this Inception instead of the classifier.",
    ),
    dry_run_option,
)
run_options = _options(
    click.argument("run", required=False, type=FOLDER),
    click.option("--preset", show_default="digits", help="Instead of RUN: this preset's eps / L_simple run."),
    click.option("--runs", type=FOLDER, show_default="runs", help="Folder of the runs."),
    click.option("--data-root", type=FOLDER, help="Where data sets lie (default .data)."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True),
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Fields of the evaluation; repeatable."
    ),
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ddpm_eval")
def main() -> None:
    """Train, sample and measure denoising diffusion models as in Ho, Jain, Abbeel (2020)."""


@main.command()
@workspace_options
def reproduce(**options: Any) -> None:  # noqa: ANN401
    """All experiments of a preset or one RUN; resumes; ends with the report's path."""
    from experiments import reproduce as experiment

    _experiment(options, experiment.jobs, ["table2", "split", "table4"])


@main.command()
@workspace_options
def ablation(**options: Any) -> None:  # noqa: ANN401
    """Table 2: train what is missing, measure, print the table."""
    from experiments import ablation as experiment

    _experiment(options, experiment.jobs, ["table2"])


@main.command("rate-distortion")
@workspace_options
def rate_distortion(**options: Any) -> None:  # noqa: ANN401
    """The split into rate and distortion, Table 4 and Fig. 5 of the paper's model or of a RUN."""
    from experiments import rate_distortion as experiment

    _experiment(options, experiment.jobs, ["split", "table4", "protocols"])


@main.command()
@workspace_options
def progressive(**options: Any) -> None:  # noqa: ANN401
    """The estimate of x_0 over the reverse process (Fig. 6)."""
    from experiments import progressive as experiment

    _experiment(options, experiment.jobs, [])


@main.command()
@report_options
def report(**options: Any) -> None:  # noqa: ANN401
    """Render the report of a preset or a RUN from what is stored; computes nothing."""
    from experiments import reproduce as experiment

    workspace = _workspace(**options, measured=True)
    if not any(workspace.entries(cell) for cell in workspace.cells):
        raise UserError(f"{workspace.folder().parent} holds no results to report (reproduce makes them)")
    click.echo(f"Report: {experiment.write(workspace)}")


@main.command()
@preset_options
@dry_run_option
@click.option("--prediction", type=click.Choice(["eps", "mu", "x0"]), help="Instead of the preset's eps.")
@click.option(
    "--objective", type=click.Choice(["vlb", "mse"]), help="Instead of the preset's mse (L_simple)."
)
@click.option("--max-minutes", type=click.FloatRange(0, min_open=True), help="Stop cleanly after this time.")
@click.option(
    "--resume/--no-resume", default=True, help="Continue from the run's checkpoint (default), or refuse to."
)
@click.option(
    "--log",
    "--logger",  # torchrun takes any --log for an abbreviation of an option of its own
    "logger",
    type=click.Choice(["tensorboard"]),
    help="Also write the curves into the run's tensorboard/ (under torchrun: --logger).",
)
@click.option(
    "--preview-steps",
    type=click.IntRange(0),
    default=5000,
    show_default=True,
    help="Updates between looks at samples (previews/) and bits/dim; 0: none.",
)
@click.option("--ignore-memory", is_flag=True, help="Train even if the memory seems too small.")
def train(
    run: Path | None,
    prediction: str | None,
    objective: str | None,
    max_minutes: float | None,
    resume: bool,
    logger: str | None,
    preview_steps: int,
    ignore_memory: bool,
    dry_run: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Train a preset's run, or go on with a RUN; continues from its checkpoint."""
    folder, spec = _to_train(run, prediction, objective, **options)
    if dry_run:
        click.echo(f"{folder}\n{spec.model_dump_json(indent=2)}")
        return
    from ddpm_eval.stages.preview import watching

    opened = _run(folder, options["device"], options["data_root"], spec=spec)
    if not resume and opened.checkpoint.exists():
        raise UserError(
            f"{opened.checkpoint} exists: leave out --no-resume to continue from it, or delete it to start again"
        )
    with watching(opened, preview_steps, logger == "tensorboard") as watchers:
        log = _holding(opened, lambda: opened.train(max_minutes, watchers, ignore_memory))
    if log.imported:
        raise UserError(
            f"{folder} is {log.reason}, without its optimiser's state: its training cannot go on here"
        )
    _say(f"{folder}: {log.status} after {log.steps} updates{', ' + log.reason if log.reason else ''}")


@main.command()
@run_options
@click.option("-n", "--n-samples", type=click.IntRange(1), help="How many (default: the preset's number).")
@click.option("--steps", type=click.IntRange(2), help="Visit only this many evenly spaced steps.")
@click.option("--method", type=click.Choice(["ancestral", "ddim"]), default="ancestral", show_default=True)
@click.option("--png", type=FOLDER, help="Also write PNG files into this folder.")
@click.option(
    "--npz", type=FOLDER, help="Also write this .npz file (arr_0, NHWC, as the ADM evaluator reads)."
)
def sample(
    n_samples: int | None,
    steps: int | None,
    method: Any,  # noqa: ANN401
    png: Path | None,
    npz: Path | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Draw samples into the run's results; resumes after a kill."""
    from ddpm_eval.data.image_set import as_images
    from ddpm_eval.results import sample_files

    run = _opened(**options)
    images = as_images(_holding(run, lambda: run.sample(n_samples, steps, method)))
    if run.runtime.main:
        click.echo(f"{len(images)} samples in {run.store.path}")
        if png is not None:
            sample_files.export_png(images, png)
        if npz is not None:
            sample_files.export_npz(images, npz)


@main.command()
@run_options
@click.option("--split", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option(
    "--protocol",
    type=click.Choice(["paper", "exact"]),
    default="paper",
    show_default=True,
    help="See docs/protocol.md.",
)
@click.option(
    "--variance", type=click.Choice(["fixed-large", "fixed-small", "learned", "learned-range", "optimal"])
)
@click.option("--clip/--no-clip", default=None, help="Clip x_0 estimates to [-1, 1].")
@click.option("--decoder", type=click.Choice(["exact", "tanh"]))
@click.option("--draws", type=click.IntRange(1), help="Noise draws per image and step.")
@click.option(
    "--steps", "chain", type=click.IntRange(2), help="The bound of a chain of this many evenly spaced steps."
)
@click.option("--estimator", type=click.Choice(["full", "stratified"]), default="full", show_default=True)
@click.option(
    "--evaluations", type=click.IntRange(1), help="Network evaluations of the stratified estimator, in all."
)
@click.option(
    "--target-halfwidth",
    type=click.FloatRange(0, min_open=True),
    help="Stratified: go on until +- this (bits/dim).",
)
@click.option(
    "--against", type=click.Choice(PRECISIONS), help="Measure in this precision too: the paired difference."
)
def likelihood(split: str, **options: Any) -> None:  # noqa: ANN401
    """The variational bound of one run in bits/dim, with its split and intervals."""
    from experiments import likelihood as experiment

    choices = {key: options.pop(key) for key in ("protocol", "variance", "clip", "decoder", "draws")}
    effort = {
        key: options.pop(key) for key in ("estimator", "evaluations", "target_halfwidth", "chain", "against")
    }
    run = _opened(**options)
    _say(_holding(run, lambda: experiment.measure(run, split, **choices, **effort)))


quality_options = _options(
    click.option(
        "--images", type=FOLDER, help="Any images: a folder, .npz (arr_0) or results.h5, instead of a run."
    ),
    click.option("--data", help="With --images: the data set to compare with, such as cifar10."),
    click.option(
        "--inception-weights",
        type=FOLDER,
        help="File of Inception weights (pytorch-fid's or torch-fidelity's).",
    ),
    click.option(
        "--inception", is_flag=True, help="Use Inception, downloading its weights if none are given."
    ),
)


@main.command()
@run_options
@quality_options
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(["paper", "torch-fidelity"]),
    default=("paper",),
)
@click.option(
    "--reference", "references", multiple=True, type=click.Choice(["train", "test"]), default=("train",)
)
@click.option(
    "--allow-singular",
    is_flag=True,
    help="Measure a distance with too few images all the same, marked as biased.",
)
def quality(
    protocols: Sequence[str], references: Sequence[str], allow_singular: bool, **options: Any
) -> None:
    """Sample quality of a run or of any images under named protocols, side by side, with intervals."""
    from experiments import image_quality as experiment

    subject = _subject(**options)

    def measure() -> str:
        return experiment.measure(subject, protocols, references, allow_singular)

    _say(measure() if subject.run is None else _holding(subject.run, measure))


@main.command()
@run_options
@quality_options
@click.option("--mirrored", is_flag=True, help="Search mirror images, too, as for a run trained with flips.")
@click.option("--out", type=FOLDER, required=True, help="Figure to write, without suffix.")
def neighbours(mirrored: bool, out: Path, **options: Any) -> None:  # noqa: ANN401
    """The training images nearest to each sample (Fig. 15), and whether samples are copies."""
    from experiments import image_quality as experiment

    _say(experiment.nearest(_subject(**options), _stem(out), mirrored))


@main.command()
@run_options
@click.option("--t", "time", type=click.IntRange(1), help="Time of the latent space (default T / 4).")
@click.option("--pairs", type=click.IntRange(1), default=4, show_default=True, help="Pairs of test images.")
@click.option("--out", type=FOLDER, required=True, help="Figure to write, without suffix.")
def interpolate(time: int | None, pairs: int, out: Path, **options: Any) -> None:  # noqa: ANN401
    """Images between pairs of test images (Fig. 8), encoded with q and decoded with p."""
    from experiments import interpolation as experiment

    run = _opened(**options)
    _holding(run, lambda: run.interpolate(time, pairs))
    if run.runtime.main:
        click.echo(f"{experiment.draw(run.store, run.measured('interpolation'), _stem(out)).stem}.png")


@main.command()
@click.option("--only", help="Only the checks whose name contains this.")
def validate(only: str | None) -> None:
    """Run the production code against Gaussian data whose exact answers are known; exit 1 if any check
    fails.
    """
    from experiments import validate as experiment

    text, passed = experiment.run(only, click.echo)
    click.echo(text)
    if not passed:
        raise SystemExit(CHECK_FAILED)


@main.command()
def presets() -> None:
    """One row per preset with its parameter count."""
    from ddpm_eval.model.unet import parameter_count
    from experiments.paper.presets import DEVIATIONS, NAMES, preset

    click.echo(
        f"{'preset':<23}{'data':<22}{'image':<12}{'parameters':>12}{'updates':>11}  {'batch':<7}{'against the paper'}"
    )
    for name in NAMES:
        spec = preset(name)
        count = parameter_count(spec.network, spec.data.channels, spec.data.side, spec.out_channels)
        image = f"{spec.data.channels}x{spec.data.side}x{spec.data.side}"
        head = f"{name:<23}{spec.data.name:<22}{image:<12}{count:>12,}{spec.train.steps:>11,}"
        click.echo(f"{head}  {spec.train.batch_size:<7}{DEVIATIONS[name] or 'as published'}")


@main.command()
@click.argument("run", type=FOLDER)
def show(run: Path) -> None:
    """Print what a run is and what its results file holds."""
    from ddpm_eval.results.store import Store
    from experiments import description

    path = run if run.suffix == ".h5" else run / "results.h5"
    for label, text in description.of_run(path).items():
        click.echo(f"{label}: {text}")
    entries = Store(path).entries()
    if not entries:
        click.echo("Nothing has been measured yet. Begin with one of")
        click.echo(
            f"    python cli.py likelihood {run} --estimator stratified\n    python cli.py reproduce {run}"
        )
    for entry in entries:
        click.secho(f"{entry.name}  ({entry.record})", bold=True)
        facts = {
            key: entry.provenance.get(key, "")
            for key in ("created", "device", "precision", "wall_seconds", "git_commit")
        }
        for key, value in {**facts, **entry.arrays, **entry.scalars}.items():
            click.echo(f"    {key:<24} {value}")


@main.command("import-checkpoint")
@click.argument("source")
@click.option("--out", type=FOLDER, required=True, help="Folder of the new run.")
@click.option("--data", default="cifar10", show_default=True, help="The data set it models.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Fields of the specification.")
def import_checkpoint(source: str, out: Path, data: str, settings: Sequence[str]) -> None:
    """Turn another project's model into a run: a diffusers folder or hub id, or the authors' converted
    weights.
    """
    from ddpm_eval.interchange import checkpoints

    spec = checkpoints.import_checkpoint(source, out, data=data, settings=_settings(settings))
    click.echo(
        f"{out}: {spec.cell}, {spec.data.channels}x{spec.data.side}x{spec.data.side}; python cli.py show {out}"
    )


@main.command("export-checkpoint")
@click.argument("run", type=FOLDER)
@click.option("--format", "layout", type=click.Choice(["diffusers"]), default="diffusers", show_default=True)
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
def export_checkpoint(run: Path, layout: Any, out: Path) -> None:  # noqa: ANN401
    """Write a run's averaged weights for diffusers."""
    from ddpm_eval.interchange import checkpoints

    checkpoints.export_checkpoint(run, out, format=layout)
    click.echo(f"{out}: DDPMPipeline.from_pretrained({str(out)!r}) loads it")


def _stem(out: Path) -> Path:
    return out.with_suffix("") if out.suffix in (".png", ".pdf") else out


def _say(text: str) -> None:
    """Print on one of the processes, and end their group."""
    from ddpm_eval.runtime import stop

    if int(os.environ.get("RANK", "0")) == 0:
        click.echo(text)
    stop()


def _settings(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise UserError(f"--set takes KEY=VALUE, not {pair!r} (such as --set train.steps=500)")
        found[key] = value
    return found


def _workspace(
    *,
    run: Path | None,
    preset: str | None,
    runs: Path | None,
    data: str | None,
    seed: int | None,
    settings: Sequence[str],
    measured: bool = False,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    from experiments.workspace import Workspace, given_run

    chosen = _settings(settings)
    if run is not None:
        _alone(run, preset=preset, runs=runs, data=data, seed=seed)
        given = given_run(run, chosen, measured=measured)
        return Workspace(given.spec.preset, seed=given.spec.seed, given=given, **options)
    if data is not None:
        from ddpm_eval.data.datasets import inspect

        channels, side = inspect(data)
        chosen = {"data.name": data, "data.channels": str(channels), "data.side": str(side), **chosen}
    return Workspace(preset or "digits", runs or RUNS, seed=seed or 0, settings=chosen, **options)


def _alone(run: Path, **options: object) -> None:
    """Refuse options that say which run is meant beside a run that was named."""
    named = [f"--{name}" for name, value in options.items() if value is not None]
    if named:
        raise UserError(f"name a RUN or {' '.join(named)}, not both: {run} says what it is")


def _to_train(run: Path | None, prediction: str | None, objective: str | None, **options: Any) -> Any:  # noqa: ANN401
    from ddpm_eval.spec_text import override
    from experiments.paper.presets import run_name

    if run is not None:
        from ddpm_eval.training.checkpoint import FILE_NAME, load

        names = ("preset", "runs", "data", "seed")
        _alone(run, prediction=prediction, objective=objective, **{name: options[name] for name in names})
        return run, override(load(run / FILE_NAME, prefixes=()).spec, _settings(options["settings"]))
    workspace = _workspace(run=None, **options)
    changes = {"diffusion.prediction": prediction, "diffusion.objective": objective}
    spec = override(workspace.spec(), {key: value for key, value in changes.items() if value is not None})
    return workspace.runs / spec.preset / run_name(spec), spec


def _experiment(options: dict[str, Any], jobs: Callable[[Any], Any], tables: Sequence[str]) -> None:
    from experiments.session import perform

    dry_run = options.pop("dry_run")
    perform(_workspace(**options), jobs, tables, dry_run=dry_run, echo=click.echo)


def _run(folder: Path, device: str, data_root: Path | None, spec: Any = None, precision: Any = "fp32") -> Any:  # noqa: ANN401
    from ddpm_eval import runtime
    from ddpm_eval.stages.pipeline import Run, open_run
    from experiments.session import bar

    here = runtime.start(device, precision=precision)
    progress = bar()
    if spec is None:
        return open_run(folder, here, data_root=data_root, progress=progress)
    return Run(folder, spec, here, data_root, progress)


def _opened(
    run: Path | None,
    preset: str | None,
    runs: Path | None,
    data_root: Path | None,
    device: str,
    precision: str,
    settings: Sequence[str],
) -> Any:  # noqa: ANN401
    from dataclasses import replace

    from experiments.workspace import Workspace, evaluated

    if run is not None:
        _alone(run, preset=preset, runs=runs)
    folder = run if run is not None else Workspace(preset or "digits", runs or RUNS).folder()
    opened = _run(folder, device, data_root, precision=precision)
    return replace(opened, spec=evaluated(folder, opened.spec, _settings(settings)))


def _subject(
    run: Path | None,
    preset: str | None,
    images: Path | None,
    data: str | None,
    inception_weights: Path | None,
    inception: bool,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    from experiments import image_quality as experiment
    from experiments.session import bar

    weights = {
        "inception_weights": inception_weights,
        "inception": inception or inception_weights is not None,
    }
    if images is None:
        return experiment.samples_of(_opened(run, preset, **options), **weights)
    if run is not None or preset is not None:
        raise UserError("name --images or a run, not both")
    if data is None:
        raise UserError("--images needs --data, the data set to compare with (such as --data cifar10)")
    if options["settings"] or options["precision"] != "fp32":
        raise UserError("--set and --precision belong to a run, not to --images")
    where = (options["runs"] or RUNS, options["data_root"], options["device"])
    return experiment.Subject(images, data, *where, **weights, progress=bar())


def _holding(run: Any, action: Callable[[], Any]) -> Any:  # noqa: ANN401
    from contextlib import nullcontext

    from ddpm_eval.results.store import exclusive
    from ddpm_eval.runtime import stop

    with exclusive(run.folder) if run.runtime.main else nullcontext():
        if run.checkpoint.exists():
            run.record_training()
        result = action()
    stop()
    return result


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    main()
