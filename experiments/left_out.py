"""What a report says in place of a part whose results are missing: why they are."""

from ddpm_eval.reporting.report_parts import Section
from ddpm_eval.results.obstacles import reasons_left_out
from ddpm_eval.results.records import TrainingLog
from experiments.study import StudyRun


def left_out(title: str, run: StudyRun, *stages: str) -> Section:
    """Return a section without content that says why it has none.

    Args:
        title: of the section.
        run: whose results are missing.
        stages: any of which would give them, named as in `ddpm_eval.stages.registry`.
    """
    return Section(title, f"Not measured: {_reason(run, stages)}.")


def _reason(run: StudyRun, stages: tuple[str, ...]) -> str:
    log = run.result("training", TrainingLog)
    if log is not None and log.diverged:
        return f"the run {run.words} diverged ({log.reason})"
    noted = reasons_left_out(run.folder)
    found = [noted[stage] for stage in stages if stage in noted]
    if found:
        return found[0].rstrip(".")
    if log is None:
        return f"the run {run.words} is not trained yet"
    names = " or ".join(stages)
    return (
        f"the stage {names} of {run.words} was not asked for, or not reached yet "
        f"(python cli.py reproduce {run.folder} measures everything)"
    )
