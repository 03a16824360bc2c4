"""The files of a run: whether each is what was written, and what can be kept of those that are damaged.

These are the checkpoint, the results with every entry, the work in progress, and the classifiers with their
statistics that runs share. Nothing that is damaged is deleted: it is set aside as ``NAME.damaged``, and the
results that are intact are kept under the file's name.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm_eval.files import set_aside
from ddpm_eval.interchange.published_run import check_card
from ddpm_eval.metrics.classifier import load_classifier
from ddpm_eval.results import hdf5
from ddpm_eval.results.store import Store
from ddpm_eval.spec import RunSpec
from ddpm_eval.stages.quality_stages import CLASSIFIERS, STATISTICS_FILE
from ddpm_eval.stages.run import PARTIAL
from ddpm_eval.training import checkpoint as checkpoints
from ddpm_eval.training.loop import training_log
from ddpm_eval.training.saved_state import check_state

INTACT = "the result is intact"
DAMAGED = "the result is damaged, or was stored by a version that gave it no digest"


@dataclass(frozen=True)
class Finding:
    """What was found of a file, or of one result in it.

    Attributes:
        path: of the file.
        text: what it holds, or how it is damaged.
        intact: whether it is what was written.
        result: the result's ``NAME/KEY``; empty if the finding is of the file.
        can_be_made: whether what is damaged may be set aside, because it can be made again.
    """

    path: Path
    text: str
    intact: bool = True
    result: str = ""
    can_be_made: bool = True


def inspect(folder: Path) -> list[Finding]:
    """Check every file of a run.

    Raises:
        ValueError: if the folder holds neither a checkpoint nor results.
    """
    checkpoint, results = folder / checkpoints.FILE_NAME, folder / checkpoints.RESULTS_NAME
    if not checkpoint.exists() and not results.exists():
        raise ValueError(f"{folder} holds neither a checkpoint nor results (name a run's folder)")
    found = [*_optional(checkpoint, _describe_checkpoint), *_of_results(results)]
    found += _of_another_run(checkpoint, results, found)
    for path in sorted((folder / PARTIAL).rglob("*.h5")):
        found.append(_finding(path, _describe_item))
    for shared in _shared_folders(folder):
        found += [_finding(path, _describe_classifier) for path in sorted(shared.glob("*.safetensors"))]
        found += _of_results(shared / STATISTICS_FILE)
    return found


def repair(findings: Sequence[Finding]) -> Iterator[str]:
    """Keep what is intact of the damaged files, set them aside, and say of each what was done."""
    damaged = {each.path: each for each in findings if not each.intact and each.can_be_made}
    for path in damaged:
        results = [each for each in findings if each.path == path and each.result]
        if results:
            kept = Store(path).drop_damaged()
            dropped = [each.result for each in results if each.result not in kept]
            what = ", ".join(dropped) or "nothing that can be listed"
            yield f"{path}: kept {len(kept)} results, dropped {what}; as it was: {path.name}.damaged"
        else:
            yield f"{path}: set aside as {set_aside(path).name}"


def _of_results(path: Path) -> list[Finding]:
    """Return what is found of a results file, and of its results where one is damaged."""
    file = _optional(path, _describe_results)
    if not path.exists():
        return []
    try:
        states = Store(path).intact()
    except ValueError:  # of another schema
        return file
    entries = [
        Finding(path, "the result is intact" if ok else DAMAGED, ok, name) for name, ok in states.items()
    ]
    if all(each.intact for each in (*file, *entries)):
        return [Finding(path, f"{file[0].text}, {len(entries)} results")]
    return [*file, *entries]


def _of_another_run(checkpoint: Path, results: Path, found: Sequence[Finding]) -> list[Finding]:
    """Return a finding if the results are of another run than the checkpoint."""
    if len(found) != 2 or not all(each.intact for each in found):
        return []
    spec: RunSpec = checkpoints.load(checkpoint, prefixes=()).spec
    runs = {entry.provenance.get("run", "") for entry in Store(results).entries()}
    if runs <= {spec.training_digest()}:
        return []
    text = f"it holds results of another run than {checkpoint.name} (files of two runs exchanged?)"
    return [Finding(results, text, intact=False, can_be_made=False)]


def _optional(path: Path, describe: Callable[[Path], str]) -> list[Finding]:
    return [_finding(path, describe)] if path.exists() else []


def _finding(path: Path, describe: Callable[[Path], str]) -> Finding:
    try:
        return Finding(path, describe(path))
    except (ValueError, OSError) as error:
        return Finding(path, str(error), intact=False)


def _describe_checkpoint(path: Path) -> str:
    saved = checkpoints.load(path)
    log = training_log(saved)
    if not log.diverged:
        checkpoints.load_network(path)
        check_card(path.parent)
    if not log.over:
        check_state(saved)
    return f"{saved.step:,} updates, weights {checkpoints.weights_digest(saved.tensors)}, {log.status}"


def _describe_results(path: Path) -> str:
    Store(path).check()
    return "as it was written"


def _describe_item(path: Path) -> str:
    hdf5.check(path, None)
    return "work in progress"


def _describe_classifier(path: Path) -> str:
    found = load_classifier(path)
    return f"{found.name}, weights {found.weights_digest}"


def _shared_folders(folder: Path) -> list[Path]:
    """Return the folders of classifiers that the run may share with others."""
    parents = folder.resolve().parents[:2]
    return [parent / CLASSIFIERS for parent in parents if (parent / CLASSIFIERS).is_dir()]
