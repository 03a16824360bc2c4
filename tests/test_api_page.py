"""docs/api.md says of every public name what its docstring says."""

import sys
from pathlib import Path

import pytest

import ddpm_eval

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import api_page  # noqa: E402

TEXT = (ROOT / "docs" / "api.md").read_text()


def test_the_page_is_what_the_docstrings_say():
    assert api_page.page() == TEXT, "docs/api.md and the docstrings differ: run python benchmarks/api_page.py"


@pytest.mark.parametrize("name", ddpm_eval.__all__)
def test_every_public_name_has_its_signature_meaning_and_example(name):
    section = TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert f"```python\nddpm_eval.{name}(" in section
    assert "```python\n>>> " in section
    assert f"- [`{name}`](#{name.lower()}): " in TEXT
    for method in api_page.public_methods(getattr(ddpm_eval, name)):
        assert f"\n### {name}.{method}\n" in section


def test_a_section_of_a_docstring_becomes_a_list():
    assert "- `limit`: the most images; of more a fixed random subset is taken." in TEXT
    assert "**Raises**\n\n- `ValueError`: if images, noise, protocols or the numbers of steps differ." in TEXT
    assert "**Source.** Ho, Jain, Abbeel" in TEXT


def test_a_signature_has_the_types_and_defaults_of_the_code():
    assert "ddpm_eval.load_run(folder: Path | str) -> Model" in TEXT
    assert '    *,\n    protocol: str | Protocol = "paper",\n' in TEXT
    assert 'model.respaced(steps: int | Sequence[int], spacing: Spacing = "trailing") -> Model' in TEXT


def test_no_markup_of_docstrings_is_left():
    assert "``" not in TEXT.replace("```", "")
    assert "doctest:" not in TEXT
    assert ":\n    " not in TEXT.replace("(\n    ", "")
