"""What a number's provenance says of its process."""

import datetime
import re
import subprocess
import sys

import h5py
import numpy as np

from ddpm_eval.results import provenance


def test_provenance_is_of_this_process():
    found = provenance.environment()
    assert found["command"] == " ".join(sys.argv)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["versions"]["numpy"] == np.__version__ and found["versions"]["h5py"] == h5py.__version__
    assert found["versions"]["ddpm_eval"] != "not installed"
    assert found["machine"] and found["system"]
    assert found["cores"] >= 1


def test_the_processor_is_named_where_the_system_tells_it(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: A Processor @ 2 GHz\nflags\t: x\n")
    assert provenance._processor(path) == "A Processor @ 2 GHz"
    assert isinstance(provenance._processor(tmp_path / "absent"), str)


def test_the_commit_is_the_packages_wherever_it_is_run_from(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|.+-g[0-9a-f]+(-dirty)?|none", provenance._git_commit())


def test_a_changed_module_is_said_and_a_changed_report_is_not(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    module, report = tmp_path / "package" / "module.py", tmp_path / "report.md"
    module.parent.mkdir()
    assert provenance._git_commit(module) == "none"
    module.write_text("a = 1\n")
    report.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "First")
    commit = provenance._git_commit(module)
    assert re.fullmatch(r"[0-9a-f]{12}", commit)
    report.write_text("2")
    assert provenance._git_commit(module) == commit
    module.write_text("a = 2\n")
    assert provenance._git_commit(module) == f"{commit}-dirty"


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance._git_commit() == "none"
    assert provenance._version("no-such-package") == "not installed"


def test_later_times_sort_behind_earlier_ones():
    first, second = provenance.now(), provenance.now()
    assert first < second
    assert datetime.datetime.fromisoformat(first).tzinfo is not None
