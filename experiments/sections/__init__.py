"""The parts of a report, one a file, all of one form: ``section(study) -> Section``, stored results in."""
