"""The wheel and the sdist hold what they promise, and an installed copy runs from another folder."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, built without network from a copy of the tracked files."""
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
    for kind in ("sdist", "wheel"):
        code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
        command = [sys.executable, "-c", code, str(folder)]
        done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


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
def test_an_installed_copy_runs_in_another_folder_and_belongs_to_no_commit(built, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(built[1]) as wheel:
        wheel.extractall(site)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)  # the environment lies in a repository
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import ddpm_eval.results.provenance as p\n"
        "assert p.__file__.startswith(sys.path[0]), p.__file__\n"
        "print(p.environment()['git_commit'])\n"
        "from experiments.command_line import main\n"
        "main(['presets'], standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("none\n")
    assert "35,746,307" in done.stdout


def test_versions_and_names_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {project['version']}\n" in citation
    constrained = {
        re.split("[=<>]", line)[0].lower() for line in (ROOT / "constraints.txt").read_text().split()
    }
    promised = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = {re.split("[<>=\\[]", entry)[0].lower() for entry in promised}
    assert names <= constrained
