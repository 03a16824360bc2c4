"""Every quality figure of every run."""

from ddpm_eval.reporting.quality_tables import quality_matrix, quality_table
from ddpm_eval.reporting.report_parts import Section
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.results.records import Quality
from experiments.study import Study

TITLE = "Sample quality of every run"


def section(study: Study) -> Section:
    """Render the table of all quality figures of all runs."""
    found = {run.label: run.result("quality", Quality) for run in study.runs}
    results = {name: quality for name, quality in found.items() if quality is not None}
    if not results:
        return Section(TITLE)
    first = next(iter(results.values()))
    caption = (
        f"Sample quality of every run; {first.caption}. "
        "The reference distance is that of the test to the training images."
    )
    frame = quality_table(results)
    table = write_table(frame, study.tables / "quality", caption, shown=quality_matrix(frame))
    caveats = sorted({quality.caveat for quality in results.values() if quality.caveat})
    return Section(TITLE, "\n\n".join(caveats), [table])
