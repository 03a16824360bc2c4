"""What a report consists of: findings, sections, their tables and figures, and how each result was made.

Tables and figures lie on disk below the report's folder; here they are known by their path without suffix and
by what the report's page repeats of them. What the page lets a reader move is plain data.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddpm_eval.results.fields import Array


@dataclass(frozen=True)
class Table:
    """A table on disk (``stem`` with .csv, .md and .tex) and its formatted cells.

    Attributes:
        stem: path without suffix.
        caption: one or more sentences, plain text.
        header: headings of the columns that are shown.
        rows: formatted cells.
        constants: headings and cells of the columns that are the same in every row, which are not shown.
        columns: names in the CSV of the columns that are shown; empty where they are not from there.
        values: raw cells, as in the CSV; numbers are float, int or None.
    """

    stem: Path
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    constants: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    values: tuple[tuple[object, ...], ...] = ()

    @property
    def full_caption(self) -> str:
        """The caption, and what is the same in every row: ``In every row: split: test; n (images): 360.``."""
        parts = [f"{name}: {cell}" for name, cell in self.constants]
        return f"{self.caption} In every row: {'; '.join(parts)}." if parts else self.caption

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers, which are aligned on the right."""
        if not self.values:
            return (False,) * len(self.header)
        columns = zip(*self.values, strict=True)
        return tuple(_are_numbers([value for value in column if value is not None]) for column in columns)


def _are_numbers(values: Sequence[object]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


@dataclass(frozen=True)
class Illustration:
    """A figure on disk: ``stem`` with .svg, .png, .pdf and .csv.

    Attributes:
        stem: path without suffix.
        caption: one or more sentences, plain text.
        alternative: what the figure shows, for those who cannot see it.
        of_images: whether the figure shows images, so that the page uses its pixels.
    """

    stem: Path
    caption: str
    alternative: str = ""
    of_images: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a `Curve`.

    Attributes:
        name: what it is of.
        x: increasing.
        y: NaN where nothing was measured.
        low: lower bounds of the intervals, empty where there are none.
        high: upper bounds.
        colour: position among the colours of lines; None for what was not measured here.
        marks: whether points are drawn instead of a line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: int | None = None
    marks: bool = False


@dataclass(frozen=True)
class Curve:
    """Lines whose values a reader can read off, and ranges into which the reader can zoom.

    Attributes:
        name: in lower case, distinct in the report.
        figure: the name of the figure's files in whose place the curve stands; it is shown without scripts.
        xlabel: with the unit.
        ylabel: with the unit.
        lines: all of them.
        logarithmic: which axes are: "", "x", "y" or "xy".
        zooms: lower and upper end of the abscissa by a phrase such as ``last 100 steps``.
    """

    name: str
    figure: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    logarithmic: str = ""
    zooms: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """A quantity at each position of a slider, NaN where it was not measured, with its intervals."""

    label: str
    value: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class ProgressiveSlider:
    """Images that change along the reverse process, with quantities that were measured at each position.

    Attributes:
        name: in lower case, distinct in the report.
        title: a phrase.
        caption: one or more sentences, plain text.
        steps: reverse steps taken at each position, increasing.
        images: uint8 ``[position, sample, channel, row, column]``.
        measures: in the order in which they are shown.
        curve: drawn below the images, with a mark that moves; its abscissa is that of ``marks``.
        marks: where the mark stands at each position, on the abscissa of ``curve``.
    """

    name: str
    title: str
    caption: str
    steps: Sequence[int]
    images: Array
    measures: Sequence[Measure]
    curve: Curve | None = None
    marks: Sequence[float] = ()


@dataclass(frozen=True)
class Option:
    """One of several runs that a reader can choose: its images, and what was measured of it."""

    label: str
    images: Array
    numbers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """Images and numbers of the run that a reader chooses.

    Attributes:
        name: in lower case, distinct in the report.
        title: a phrase.
        caption: one or more sentences, plain text.
        options: images are uint8 ``[image, channel, row, column]``; the first is shown at the beginning.
        columns: images in a row.
    """

    name: str
    title: str
    caption: str
    options: Sequence[Option]
    columns: int


@dataclass(frozen=True)
class Picture:
    """A few images, laid out in a grid and shown as they are.

    Attributes:
        images: uint8 ``[image, channel, row, column]``.
        columns: images in a row.
        alternative: what they show, for those who cannot see them.
    """

    images: Array
    columns: int
    alternative: str


@dataclass(frozen=True)
class Finding:
    """One thing that was found: a short number, and a sentence that says what it is worth."""

    label: str
    value: str
    sentence: str
    picture: Picture | None = None


@dataclass(frozen=True)
class Section:
    """A part of the report. ``text`` holds plain paragraphs, separated by blank lines."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Illustration] = ()
    interactive: Sequence[Curve | ProgressiveSlider | Choice] = ()

    @property
    def paragraphs(self) -> list[str]:
        """The text's paragraphs, each on one line."""
        return [" ".join(part.split()) for part in self.text.split("\n\n") if part.strip()]

    @property
    def anchor(self) -> str:
        """The section's name in addresses: its title in lower case, without what is in brackets."""
        words = re.findall(r"[a-z0-9]+", re.sub(r"\(.*?\)", "", self.title).lower())
        return "-".join(words) or "section"


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
        weights: digest of the weights that were measured.
        key: digest of everything that the result depends on.
        command: the command line.
        machine: processor, cores and operating system.
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
    weights: str = ""
    key: str = ""
    command: str = ""
    machine: str = ""


def markdown_text(text: str) -> str:
    """Return a text for Markdown: on one line, and without HTML, whatever names it holds."""
    return " ".join(text.splitlines()).replace("<", "&lt;")
