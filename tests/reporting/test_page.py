"""The report as its reader meets it: parsed HTML, resolved links, and without the heavy dependencies."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddpm_eval.files import file_digest
from ddpm_eval.reporting import page
from ddpm_eval.reporting.report_parts import (
    Curve,
    Finding,
    Illustration,
    Line,
    Measure,
    Picture,
    ProgressiveSlider,
    ProvenanceRow,
    Section,
)
from ddpm_eval.reporting.tables import write_table

ROW = ProvenanceRow(
    run="eps-mse",
    result="bound/full/test/exact",
    n="360 images",
    unit="bits/dim",
    interval="95%, BCa",
    protocol="fixed-large, unclipped",
    device="cpu",
    wall_time="3 min 20 s",
    versions="Python 3.11.9, torch 2.13.0",
    commit="abc123",
    created="",
)


UPLOT = "19c8d4c6ad88"
SVG = """<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">
 <metadata>made by</metadata><defs><style type="text/css">*{x: y}</style><path id="m1" d="M 0 0"/></defs>
 <g id="a" clip-path="url(#p1)" style="fill: #00558c; stroke: #262626"><use xlink:href="#m1"/></g>
</svg>"""


class Page(HTMLParser):
    """Collects links, text and checks that tags are balanced."""

    VOID = ("meta", "img", "link", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.text, self.tags, self.ids = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = [value for name, value in attributes if name in ("href", "src")]
        self.links += [link for link in found if not link.startswith("data:")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data.strip())


@pytest.fixture
def sections(tmp_path):
    frame = pd.DataFrame({"name": ["<b>&|"], "x": [1.0], "x_low": [0.9], "x_high": [1.1]})
    table = write_table(frame, tmp_path / "tables" / "t", "Table of <things> & more.")
    stem = tmp_path / "figures" / "f"
    stem.parent.mkdir()
    for suffix in (".png", ".pdf", ".csv"):
        stem.with_suffix(suffix).write_bytes(b"x")
    stem.with_suffix(".svg").write_text(SVG)
    figure = Illustration(stem, 'A "caption".')
    return [Section("First & <only>", "One\nline.\n\nTwo.", [table], [figure]), Section("Later")]


def test_every_link_exists_and_is_relative(sections, tmp_path):
    path = page.write_report(tmp_path, "Title", sections, [ROW])
    links = [link for link in Page(path.read_text()).links if not link.startswith("#")]
    assert len(links) == 7
    for link in links:
        assert (tmp_path / link).exists()
        assert not Path(link).is_absolute()
        assert link in (tmp_path / "report.md").read_text()


def test_page_is_balanced_escaped_and_complete(sections, tmp_path):
    text = page.write_report(tmp_path, "Title", sections, [ROW], {"preset": "<digits>"}).read_text()
    parsed = Page(text)
    assert parsed.open == []
    for expected in (
        "First & <only>",
        "<b>&|",
        "1.00 [0.90, 1.10]",
        "One line.",
        "Two.",
        "<digits>",
        "Not measured: no result of it is stored.",
    ):
        assert expected in parsed.text
    assert "<b>" not in text
    assert not re.search(
        r"""(src|href|url\(|import)\W{0,3}https?:""", text
    )  # nothing is loaded from elsewhere
    assert "link" not in parsed.tags


def test_anchors_lead_somewhere(sections, tmp_path):
    text = page.write_report(tmp_path, "Title", sections, [ROW]).read_text()
    anchors = [link.removeprefix("#") for link in Page(text).links if link.startswith("#")]
    assert anchors == ["content", "first-only", "later", "provenance", "f-m1"]
    assert all(f'id="{anchor}"' in text for anchor in anchors)


@pytest.mark.parametrize("name", ["report.md", "index.html"])
def test_each_number_says_how_it_was_made(name, sections, tmp_path):
    page.write_report(tmp_path, "Title", sections, [ROW])
    text = (tmp_path / name).read_text()
    for part in (
        "360 images",
        "bits/dim",
        "95%, BCa",
        "fixed-large, unclipped",
        "cpu",
        "3 min 20 s",
        "torch 2.13.0",
        "abc123",
    ):
        assert part in text


def test_what_all_results_share_is_said_once(sections, tmp_path):
    """Two results that differ in n and device only: their columns remain, versions are said once, blanks not
    at all.
    """
    other = replace(ROW, n="512 images", device="cuda")
    text = page.write_report(tmp_path, "Title", sections, [ROW, other]).read_text()
    assert text.count("torch 2.13.0") == 1
    assert text.count("3 min 20 s") == 1
    assert [text.count(part) for part in ("360 images", "512 images", "<td>cpu</td>", "<td>cuda</td>")] == [
        1,
        1,
        1,
        1,
    ]
    assert "created of all results" not in text


def test_what_was_found_comes_first_then_the_claims(sections, tmp_path):
    found = Finding(
        "Bits/dim", "3.75 [3.71, 3.79]", "A <sentence>.", Picture(np.zeros((2, 1, 8, 8), np.uint8), 2, "Two.")
    )
    claims = Section("Claims", "All hold.")
    path = page.write_report(tmp_path, "Title", sections, [ROW], headline=[found], claims=claims)
    parsed = Page(path.read_text())
    assert parsed.open == []
    texts = [
        text
        for text in parsed.text
        if text in ("3.75 [3.71, 3.79]", "A <sentence>.", "All hold.", "Two.", "One line.")
    ]
    assert texts == ["3.75 [3.71, 3.79]", "A <sentence>.", "All hold.", "One line.", "Two."]
    places = [
        place for place in parsed.ids if place in ("found", "claims", "first-only", "later", "provenance")
    ]
    assert places == ["found", "claims", "first-only", "later", "provenance"]
    markdown = path.with_name("report.md").read_text()
    assert markdown.startswith("# Title\n\n- **Bits/dim: 3.75 [3.71, 3.79]**. A &lt;sentence>.\n")


def test_no_name_occurs_twice(sections, tmp_path):
    parsed = Page(page.write_report(tmp_path, "Title", sections, [ROW]).read_text())
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert {"table-t", "figure-f"} <= set(parsed.ids)


def test_interactive_parts_are_data_beside_the_still_figure(sections, tmp_path):
    line = Line("a </script>", [1, 2], [3, math.nan], [2, math.nan], [4, math.nan], 0)
    curve = Curve("c", "f", "x", "y", [line], "y", {"end": (1, 2)})
    measure = Measure("rate", [1, 2], [0, 1], [2, 3])
    images = np.zeros((2, 3, 1, 8, 8), np.uint8)
    slider = ProgressiveSlider("s", "Steps", "A caption.", [1, 2], images, [measure], curve, [1, 2])
    section = replace(sections[0], interactive=[curve, slider])
    text = page.write_report(tmp_path, "Title", [section]).read_text()
    assert Page(text).open == []
    blocks = [
        json.loads(block)
        for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    ]
    assert [block["name"] for block in blocks] == ["c", "s", "c"]
    assert blocks[2]["lines"][0]["name"] == "a </script>"
    assert blocks[2]["lines"][0]["y"] == [3, None]
    assert blocks[1]["measures"] == [{"label": "rate", "value": [1, 2], "low": [0, 1], "high": [2, 3]}]
    assert '<svg role="img"' in text


def test_the_same_report_has_the_same_bytes(sections, tmp_path):
    first = page.write_report(tmp_path, "Title", sections, [ROW]).read_bytes()
    assert page.write_report(tmp_path, "Title", sections, [ROW]).read_bytes() == first


def test_the_library_in_the_page_has_its_licence_beside_it():
    folder = page.HERE / "vendor" / "uplot"
    assert "MIT" in (folder / "LICENSE").read_text()
    assert file_digest(folder / "uPlot.iife.min.js") == UPLOT, "as it was published, version 1.6.32"


def test_markdown_tables_have_equal_columns(sections, tmp_path):
    page.write_report(tmp_path, "Title", sections, [ROW])
    lines = (tmp_path / "report.md").read_text().splitlines()
    blocks = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    tables = [block.split("\n") for block in blocks if block.strip()]
    assert len(tables) == 2
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table if line}) == 1


def test_report_grows_and_is_replaced_whole(sections, tmp_path, monkeypatch):
    first = page.write_report(tmp_path, "Title", sections[1:]).read_text()
    assert page.write_report(tmp_path, "Title", sections).read_text() != first
    second = [(tmp_path / name).read_text() for name in page.FILES]

    def fail(path, _text, **_options):
        path.write_bytes(b"half of i")
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(ValueError, match=r"cannot write .*no space"):
        page.write_report(tmp_path, "Title", [])
    assert [(tmp_path / name).read_text() for name in page.FILES] == second
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "report.md", "tables", "figures"}


def test_missing_and_foreign_files_are_refused(sections, tmp_path):
    with pytest.raises(ValueError, match="outside the report's folder"):
        page.write_report(tmp_path / "elsewhere", "Title", sections)
    (tmp_path / "figures" / "f.pdf").unlink()
    with pytest.raises(ValueError, match=r"f\.pdf, which does not exist"):
        page.write_report(tmp_path, "Title", sections)


HEAVY = ("torch", "h5py", "torchvision", "torch_fidelity")
PLOTTING = ("matplotlib", "seaborn", "jinja2")
FREE_OF = {
    ("report_parts", "page", "mosaics", "colours", "inline_figures", "interactive_data"): (
        *HEAVY,
        "matplotlib",
        "seaborn",
        "pandas",
        "scipy",
    ),
    (
        *("intervals", "estimate_columns", "bound_tables", "bound_comparisons", "rate_distortion_tables"),
        *("ablation_table", "quality_tables", "training_tables", "tables", "provenance_rows", "curves"),
        *("replicates", "term_ranges", "coverage_tables", "latex", "training_caveats"),
    ): (*HEAVY, *PLOTTING),
    ("figure_style", "figure_files", "figure_descriptions", "plots", "ablation_figure", "image_grids"): HEAVY,
}
"""Modules and the packages that they do without."""


def test_every_module_is_said_to_be_free_of_something():
    modules = {path.stem for path in Path(page.__file__).parent.glob("*.py")} - {"__init__"}
    assert modules == {name for names in FREE_OF for name in names}


@pytest.mark.parametrize(("modules", "absent"), FREE_OF.items(), ids=lambda names: names[-1])
def test_reporting_needs_no_heavy_dependency(modules, absent):
    """In a process where they cannot be imported; the page alone does without the plotting stack, too."""
    code = (
        "import sys, importlib\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {absent}:\n"
        "            raise ImportError(name + ' was imported')\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"for name in {modules}: importlib.import_module('ddpm_eval.reporting.' + name)\n"
    )
    root = Path(page.__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
