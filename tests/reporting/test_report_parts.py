"""The parts of a report."""

from ddpm_eval.reporting.report_parts import Section


def test_paragraphs_are_separated_by_blank_lines():
    section = Section("Title", "One\n  line.\n\n\nTwo\nlines.\n")
    assert section.paragraphs == ["One line.", "Two lines."]
    assert Section("Title").paragraphs == []
