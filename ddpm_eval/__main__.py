"""The command line of ddpm_eval where it is installed: ``python -m ddpm_eval --help``."""

from experiments.command_line import run

if __name__ == "__main__":
    run()
