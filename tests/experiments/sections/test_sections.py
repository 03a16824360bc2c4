"""Every section has one form: read one, know all."""

import inspect
import pkgutil
from pathlib import Path

import pytest

import ddpm_eval
from ddpm_eval.reporting.report_parts import Section
from experiments import sections
from experiments.study import Study

NAMES = [module.name for module in pkgutil.iter_modules(sections.__path__)]
MODULES = [pkgutil.resolve_name(f"experiments.sections.{name}") for name in NAMES]


def test_there_are_sections():
    assert len(NAMES) == 17


@pytest.mark.parametrize("module", MODULES, ids=NAMES)
def test_a_section_is_a_function_of_a_study(module):
    signature = inspect.signature(module.section)
    assert list(signature.parameters) == ["study"]
    assert signature.parameters["study"].annotation is Study
    assert signature.return_annotation is Section


@pytest.mark.parametrize("module", MODULES, ids=NAMES)
def test_without_results_a_section_says_why_and_writes_nothing(module, empty):
    found = module.section(empty)
    assert found.title == module.TITLE
    assert found.text in [f"Not measured: the run {run.words} is not trained yet." for run in empty.runs]
    assert [*found.tables, *found.figures] == []
    assert not empty.report_folder.exists()


def test_the_names_of_sections_occur_nowhere_else():
    packages = [Path(ddpm_eval.__file__).parent, Path(sections.__file__).parents[1]]
    files = [path for package in packages for path in package.rglob("*.py")]
    others = [path.stem for path in files if path.parent.name != "sections"]
    assert set(NAMES) & set(others) == set()
