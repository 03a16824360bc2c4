"""What the pages of the documentation point to exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NAMES = [path.name for path in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_linked_file_exists(page):
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_test_file_that_is_named_exists(page):
    named = re.findall(r"\btests/[a-z0-9_/]+\.py\b", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []
