"""One stay on a machine that is lent by the minute: train, measure, and leave everything in parts to carry.

    python benchmarks/gpu_run.py OUT --preset cifar10-small --minutes 25 [--background] [--data-parts DIR]
                                 [--data-root DIR] [--runs DIR] [--wheels DIR] [--set KEY=VALUE ...]

Trains for a share of the minutes in a few slices, measures the bound after each (`OUT/bits_per_dim.csv`),
then measures the last averaged weights in the order of importance until the time is over, each step in a
process of its own. OUT holds at any moment the last complete parts of four sets: `notes` (history, log,
report), `weights` (the averaged ones alone), `results` (and work in progress) and `state` (the whole
checkpoint). With ``--background`` all this goes on while `carry.py collect` takes the parts along, call by
call. The next stay continues: from the runs on this machine, or, where there are none, from OUT. It trains
on, if OUT has the state; with ``--train-share 0`` it finishes the measurements of the weights that are there.
See docs/scaling.md.
"""

import argparse
import signal
import sys
from pathlib import Path

from lent_machine import packages, run_in_background

STOPPED, USER_ERROR = 130, 2


def main() -> None:
    """Stay, or begin a stay in the background.

    Exits with 0 if every step that had its time came to its end, 1 if one failed, 2 if the user must change
    something.
    """
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        failed = begin(options) if options.background else stay(options)
    except KeyboardInterrupt:
        print("Stopped. What was finished is kept: the same command continues.", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
    raise SystemExit(1 if failed else 0)


def interrupt(*_: object) -> None:
    """Stop as Ctrl-C does, also where a shell or a scheduler ends this process."""
    raise KeyboardInterrupt


def begin(options: argparse.Namespace) -> bool:
    """Start the same command without ``--background`` in a session of its own."""
    words = [word for word in sys.argv[1:] if word != "--background"]
    run_in_background([sys.executable, __file__, *words], options.out)
    print(f"The stay has begun; carry.py collect {options.out} TARGET takes its parts along.")
    return False


def stay(options: argparse.Namespace) -> bool:
    """Make the whole stay; return whether a step failed."""
    with packages(options.wheels):
        import lent_stay  # needs the packages, which may have been installed just now

        return bool(lent_stay.spend(lent_stay.Stay(options)).failed)


# Options


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to carry home and back")
    add_plan(parser)
    add_places(parser)
    parser.add_argument("--background", action="store_true", help="return at once, and go on")
    return parser.parse_args()


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say what is trained and measured."""
    add = parser.add_argument
    add("--preset", default="cifar10-small")
    add("--minutes", type=positive, default=25.0, help="of the whole stay (default 25)")
    add("--train-share", type=share, default=0.6, help="of the minutes; 0 measures only (default 0.6)")
    add("--slices", type=slices, default=3, metavar="N", help="of training, each measured (default 3)")
    add(
        "--precision",
        default="fp32",
        choices=("fp32", "tf32", "bf16"),
        help="of the full bound and of samples (default fp32)",
    )
    add("--seed", type=int, default=0)
    add(
        "--set",
        dest="settings",
        action="append",
        default=[],
        type=setting,
        metavar="KEY=VALUE",
        help="as in cli.py; repeatable",
    )


def add_places(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say where everything lies."""
    add = parser.add_argument
    add("--data-parts", type=Path, help="folder of the data set's file or its parts, joined into --data-root")
    add("--data-root", type=Path, default=Path(".data"), help="where data sets lie (default .data)")
    add("--wheels", type=Path, help="folder of wheels to install for this stay, without a network")
    add("--runs", type=Path, default=Path("runs"), help="where this machine keeps runs (default runs)")
    add("--part-mb", type=positive, default=15.0, help="MiB of the parts in OUT (default 15)")
    add("--device", default="auto")


def positive(text: str) -> float:
    """Read a positive number."""
    if not float(text) > 0:
        raise ValueError(text)
    return float(text)


def share(text: str) -> float:
    """Read a share of 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise ValueError(text)
    return float(text)


def slices(text: str) -> int:
    """Read a number of slices, 1 to 100."""
    if not 1 <= int(text) <= 100:
        raise ValueError(text)
    return int(text)


def setting(text: str) -> str:
    """Read KEY=VALUE."""
    if "=" not in text:
        raise ValueError(text)
    return text


if __name__ == "__main__":
    main()
