"""From a folder to the run that it holds, be its network that of a checkpoint or a named one."""

from pathlib import Path

from ddpm_eval.interchange.published_run import check_card
from ddpm_eval.runtime import Progress, Runtime, silent
from ddpm_eval.spec import NamedNetwork, RunSpec
from ddpm_eval.stages.named_run import NamedRun, named_spec
from ddpm_eval.stages.run import Run
from ddpm_eval.training import checkpoint as checkpoints


def open_run(
    folder: Path, runtime: Runtime, data_root: Path | None = None, progress: Progress = silent
) -> Run:
    """Return the run that lies in ``folder``.

    Raises:
        ValueError: if there is none.
    """
    return run_in(folder, stored_spec(folder), runtime, data_root, progress)


def run_in(
    folder: Path,
    spec: RunSpec,
    runtime: Runtime,
    data_root: Path | None = None,
    progress: Progress = silent,
) -> Run:
    """Return the run of a specification in a folder, which need not exist yet."""
    kind = NamedRun if isinstance(spec.network, NamedNetwork) else Run
    return kind(folder, spec, runtime, data_root, progress)


def runs_above(folder: Path, spec: RunSpec) -> Path:
    """Return the folder of all runs, in which a run lies itself or below its preset's or its data set's."""
    parent = folder.resolve().parent
    return parent.parent if parent.name in (spec.preset, spec.data.folder_name) else parent


def stored_spec(folder: Path) -> RunSpec:
    """Return what the folder's network was made with.

    Raises:
        ValueError: if the folder holds neither a checkpoint nor a named network, or a published run whose
            card does not fit.
    """
    named = named_spec(folder)
    if named is not None:
        return named
    if not (folder / checkpoints.FILE_NAME).exists():
        raise ValueError(
            f"{folder} holds no {checkpoints.FILE_NAME} (train the run first, or name another folder)"
        )
    check_card(folder)
    return checkpoints.load(folder, prefixes=()).spec
