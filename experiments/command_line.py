"""The command line of ddpm_eval: each command is a file of `experiments.commands`, loaded when called."""

import importlib
import os
from itertools import groupby

import click

INTERRUPTED = 130
TERMINATED = 143
"""Exit codes by which shells know programs that were ended by SIGINT and SIGTERM."""
COMMANDS = {
    "reproduce": ("The paper's experiments", "All experiments of two data sets, a preset or a RUN."),
    "ablation": ("The paper's experiments", "Table 2: six models of one preset."),
    "rate-distortion": ("The paper's experiments", "Rate and distortion: the split, Table 4 and Fig. 5."),
    "progressive": ("The paper's experiments", "The estimate of x_0 over the reverse process, Fig. 6."),
    "report": ("The paper's experiments", "Render the report from what is stored; compute nothing."),
    "train": ("One run", "Train a run, or continue its training."),
    "sample": ("One run", "Draw samples."),
    "likelihood": ("One run", "The variational bound in bits/dim."),
    "quality": ("One run", "Sample quality of a run or of any images."),
    "neighbours": ("One run", "The training images nearest to samples: Fig. 15."),
    "interpolate": ("One run", "Images between test images: Fig. 8."),
    "show": ("One run", "What a run is, and what is stored of it."),
    "verify": ("One run", "Check that every file of a run is what was written."),
    "compare": ("Several runs", "Compare runs with paired intervals: a page and a leaderboard."),
    "import-checkpoint": ("Other projects' models", "Turn another project's model into a run."),
    "export-checkpoint": ("Other projects' models", "Write a run's weights for diffusers, or as a RUN."),
    "presets": ("About", "The presets with their parameter counts."),
    "validate": ("About", "Check the program against exact answers."),
}
"""Each command's group and a line about it, so that the help loads no command."""


class UserError(click.ClickException):
    """What the user must change, in one sentence."""

    exit_code = 2


class Commands(click.Group):
    """The commands; an error of the library is shown as one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; return None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"experiments.commands.{cmd_name.replace('-', '_')}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands in groups."""
        for title, names in groupby(COMMANDS, key=lambda name: COMMANDS[name][0]):
            with formatter.section(title):
                formatter.write_dl([(name, COMMANDS[name][1]) for name in names])

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise UserError(on_one_line(f"{error.strerror or error}{where}")) from error
        except ValueError as error:
            raise UserError(on_one_line(str(error))) from error
        except KeyboardInterrupt:
            say_stopped()
            ctx.exit(INTERRUPTED)
        except SystemExit as ended:
            if ended.code == TERMINATED:
                say_stopped()
            raise


def say_stopped() -> None:
    """Say what was kept, in the first of torchrun's processes only."""
    if os.environ.get("RANK", "0") == "0":
        click.echo("\nStopped. Finished work is kept: the same command continues where it was.", err=True)


def on_one_line(text: str) -> str:
    r"""Return a text with the line breaks of names that it repeats as ``\n``."""
    return r"\n".join(text.splitlines())


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ddpm_eval")
def main() -> None:
    """Train, sample and measure denoising diffusion models as in Ho, Jain, Abbeel (2020)."""


def run() -> None:
    """Run the command line as a program."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads sleep; read when torch is loaded
    main()
