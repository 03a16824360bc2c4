"""The command line of ddpm_eval from a checkout: ``python cli.py --help``."""

from experiments.command_line import COMMANDS, main, run

__all__ = ["COMMANDS", "main"]

if __name__ == "__main__":
    run()
