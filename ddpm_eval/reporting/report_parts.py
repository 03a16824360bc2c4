"""What a report consists of: sections, the tables and figures that they show, and how each result was made.

Tables and figures lie on disk below the report's folder; here they are known by their path without suffix and
by what the report's page repeats of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """A table on disk (``stem`` with .csv, .md and .tex) and its formatted cells."""

    stem: Path
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Illustration:
    """A figure on disk: ``stem`` with .png, .pdf and .csv."""

    stem: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the report. ``text`` holds plain paragraphs, separated by blank lines."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Illustration] = ()

    @property
    def paragraphs(self) -> list[str]:
        """The text's paragraphs, each on one line."""
        return [" ".join(part.split()) for part in self.text.split("\n\n") if part.strip()]


@dataclass(frozen=True)
class ProvenanceRow:
    """How one stored result came about: a row of the report's last table.

    Attributes:
        run: the run's name.
        result: the result's name in the store.
        n: how many of what, such as ``360 images``.
        unit: of the measured quantities.
        interval: how the interval was made, or ``none``.
        protocol: every choice that changes the numbers.
        device: that computed them.
        wall_time: that it took.
        versions: of Python and of the packages.
        commit: of this program.
        created: when.
    """

    run: str
    result: str
    n: str
    unit: str
    interval: str
    protocol: str
    device: str
    wall_time: str
    versions: str
    commit: str
    created: str
