"""The wheel and the sdist hold what they promise, and an installed copy runs from another folder."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from command_line import TINY, set_options
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and the sdist that it was built of, without network, from a copy of the tracked files."""
    pytest.importorskip("setuptools", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("build")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    sdist = build("sdist", folder / "source", folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return sdist, build("wheel", unpacked, folder)


def build(kind, source, folder):
    """Build a distribution of a source folder, and return its path."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    return folder / run(sys.executable, "-c", code, folder, cwd=source).splitlines()[-1]


def run(*command, cwd):
    """Run a program, and return what it prints."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The programs of an environment into which pip installed the wheel, inside a foreign repository.

    It sees the packages of the environment of the tests, but for the project.
    """
    folder = tmp_path_factory.mktemp("installed")
    run("git", "init", "-q", cwd=folder)
    run(sys.executable, "-m", "venv", "venv", cwd=folder)
    programs = folder / "venv" / "bin"
    run(programs / "pip", "install", "--no-index", "--no-deps", built[1], cwd=folder)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "tests.pth").write_text("\n".join(others))
    return programs


@pytest.mark.slow
def test_the_wheel_installs_two_packages_and_a_command(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
        assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
            "ddpm_eval",
            "experiments",
        }
        assert "ddpm_eval/py.typed" in names
        assert any(name.startswith("ddpm_eval/reporting/templates/") for name in names)
        (points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "ddpm-eval = experiments.command_line:run" in wheel.read(points).decode()
        assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_sdist_holds_all_that_its_tests_need(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    command = ["git", "ls-files", "tests", "docs", "models"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    needed = {name for name in listed.stdout.split() if (ROOT / name).exists()}
    assert needed <= names
    assert {"constraints.txt", "cli.py", "LICENSE", "CITATION.cff", "README.md"} <= names


@pytest.mark.slow
def test_the_metadata_of_both_is_valid(built):
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        of_sdist = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO").read()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        of_wheel = archive.read(name)
    for text in (of_sdist, of_wheel):
        metadata = Metadata.from_email(text, validate=True)
        assert (metadata.name, metadata.license_expression) == ("ddpm_eval", "MIT")
        assert metadata.description.startswith("# ") and metadata.description_content_type == "text/markdown"
    assert len(of_wheel) > 3000


@pytest.mark.slow
def test_an_installed_copy_belongs_to_no_commit(installed):
    """Nor to that of the repository in which the environment lies."""
    code = "import ddpm_eval.results.provenance as p; print(p.__file__, p.environment()['git_commit'])"
    file, commit = run(installed / "python", "-c", code, cwd=installed).split()
    assert Path(file).is_relative_to(installed.parent)
    assert commit == "none"


@pytest.mark.slow
def test_an_installed_copy_reproduces_from_an_empty_folder(installed, digits_classifier, tmp_path):
    shutil.copytree(digits_classifier.weights_path.parent, tmp_path / "runs" / "classifiers")
    settings = set_options({**TINY, "train.steps": "20"})
    printed = run(installed / "ddpm-eval", "reproduce", "--preset", "digits", *settings, cwd=tmp_path)
    report = tmp_path / printed.splitlines()[-1].removeprefix("Report: ")
    assert report.name == "index.html" and report.stat().st_size > 10_000
    rows = (report.parent / "tables" / "table2.csv").read_text().splitlines()
    assert len(rows) > 6 and ",digits-classifier," in rows[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reports", "runs"]


def requirements(*extras):
    """Return what the project requires, with those of some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [
        *project["dependencies"],
        *(line for extra in extras for line in project["optional-dependencies"][extra]),
    ]
    return [Requirement(line) for line in listed]


def test_the_lowest_versions_are_those_that_are_promised():
    """But for torch's, whose older wheels are not run."""
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    lowest = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in requirements("test"):
        name = requirement.name.lower()
        (bound,) = requirement.specifier
        assert Version(lowest[name]) in requirement.specifier
        if name not in ("torch", "torchvision"):
            assert Version(lowest[name]) == Version(bound.version), name


def test_versions_and_names_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {project['version']}\n" in citation
    constrained = {
        re.split("[=<>]", line)[0].lower() for line in (ROOT / "constraints.txt").read_text().split()
    }
    assert {requirement.name.lower() for requirement in requirements("test")} <= constrained
