"""Folders named with markup are shown letter by letter: in figures, in HTML, Markdown and LaTeX."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from command_line import SETTINGS, call, refuse
from PIL import Image

NAMES = ["$x^$", "<script>alert(1)<", "a|b", "two\nlines", "50%_&#{}~^\\"]
EVERYTHING = "".join(NAMES)


class Scripts(HTMLParser):
    """Counts the scripts of a page, and collects the other texts."""

    def __init__(self, page):
        super().__init__()
        self.scripts, self.text = 0, ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"

    def handle_data(self, data):
        self.text += data


@pytest.mark.slow
def test_a_run_named_with_markup_is_reported(trained_run, tmp_path):
    plain = call("report", trained_run, "--reports", tmp_path / "plain")
    hostile = shutil.copytree(trained_run, tmp_path / "runs" / EVERYTHING)
    call("report", hostile, "--reports", tmp_path / "reports")
    (folder,) = (tmp_path / "reports").iterdir()
    assert folder.name == f"runs-{EVERYTHING}"

    page = Scripts((folder / "index.html").read_text())
    whole = re.search(r"Report: (.*)", plain)[1]
    assert page.scripts == Scripts(Path(whole).read_text()).scripts
    assert "alert(1)" in page.text and "$x^$" in page.text

    markdown = (folder / "report.md").read_text()
    assert "<script" not in markdown and "$x^$&lt;script>alert(1)&lt;a" in markdown
    assert "two lines" in markdown and "two\nlines" not in markdown
    for table in (folder / "tables").glob("*.md"):
        rows = [line for line in table.read_text().splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, table
    for table in (folder / "tables").glob("*.tex"):
        assert not re.search(r"(?<!\\)[$&#]x|\n\n", table.read_text().strip()), table
    assert len(list((folder / "figures").glob("*.svg"))) == len(
        list((tmp_path / "plain").rglob("*.svg"))
    )  # each figure could be drawn


def test_a_data_folder_named_with_markup_is_shown_and_trained_on(tmp_path):
    name = EVERYTHING.replace("\n", " ")
    data = tmp_path / name
    data.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(data / f"{index}.png")
    runs = ["--runs", tmp_path / "runs", "--data", f"folder:{data}"]
    call("train", *runs, *SETTINGS, "--preview-steps", "0")
    (run,) = (path for path in (tmp_path / "runs").rglob("checkpoint.safetensors"))
    assert name in call("show", run.parent)
    call("report", run.parent, "--reports", tmp_path / "reports")
    (markdown,) = (tmp_path / "reports").rglob("report.md")
    assert "<script" not in markdown.read_text() and name.replace("<", "&lt;") in markdown.read_text()
    (page,) = (tmp_path / "reports").rglob("index.html")
    assert name in Scripts(page.read_text()).text


def test_a_data_folder_named_with_a_line_break_is_a_sentence(tmp_path):
    (tmp_path / "two\nlines").mkdir()
    said = refuse("train", "--runs", tmp_path / "runs", "--data", f"folder:{tmp_path}/two\nlines")
    assert "there is no data set" in said and "two\\nlines" in said
