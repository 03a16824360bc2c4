"""What the code as a whole keeps to: imports flow one way, heavy libraries stay where they belong, the
library is silent.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "ddpm_eval"

# A module may import those before it, never those after it.
ORDER = [
    "spec",
    "randomness",
    "records",
    "stratified",
    "image_files",
    "data",
    "diffusion",
    "oracle",
    "unet",
    "runtime",
    "checkpoint",
    "interchange",
    "memory",
    "train",
    "tensorboard",
    "sample",
    "bound",
    "features",
    "feature_metrics",
    "quality",
    "neighbours",
    "store",
    "sample_sets",
    "likelihood",
    "sample_quality",
    "intervals",
    "analyse",
    "render",
    "report",
    "pipeline",
    "preview",
    "jobs",
]
LIGHT = ("spec", "records", "stratified", "store", "intervals", "analyse", "render", "report", "jobs")
"""Modules that work where torch is not even installed."""
COMPUTING = ("validate", "likelihood", "image_quality")
"""Experiments that call the model in their own process; all others only plan and report."""
OWNERS = {
    "h5py": {"store"},
    "safetensors": {"checkpoint", "interchange", "features"},
    "torch_fidelity": {"features", "feature_metrics"},
    "seaborn": {"render"},
    "jinja2": {"report"},
    "sklearn": {"data"},
}
"""Libraries and the only modules that import them."""

MODULES = {path.stem: ast.parse(path.read_text()) for path in LIBRARY.glob("*.py") if path.stem != "__init__"}
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__")


def imported(tree):
    """List everything a module imports, at any depth, as dotted names; what only a type checker reads is not
    imported.
    """
    names = []
    unread = {
        below
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for below in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - unread:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def siblings(tree):
    parts = [name.split(".") for name in imported(tree)]
    return {part[1] for part in parts if part[0] == "ddpm_eval" and len(part) > 1}


def run_python(code, *options):
    done = subprocess.run(
        [sys.executable, *options, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_order_names_every_module():
    assert sorted(ORDER) == sorted(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_flow_down_the_list_only(name):
    upwards = {other for other in siblings(MODULES[name]) if ORDER.index(other) >= ORDER.index(name)}
    assert not upwards, f"{name} imports {upwards}, which come after it"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_library_knows_neither_its_experiments_nor_its_command_line(name):
    assert not {module.split(".")[0] for module in imported(MODULES[name])} & {
        "experiments",
        "cli",
        "click",
        "tests",
    }


@pytest.mark.parametrize("library", OWNERS)
def test_each_format_and_engine_has_one_home(library):
    users = {
        name
        for name, tree in MODULES.items()
        if library in {module.split(".")[0] for module in imported(tree)}
    }
    assert users and users <= OWNERS[library]


def test_the_design_of_a_stratified_evaluation_needs_only_numpy():
    outside = {module.split(".")[0] for module in imported(MODULES["stratified"])}
    assert outside == {"numpy", "ddpm_eval"}


def test_the_library_does_not_print():
    calls = [
        f"{name}.py:{node.lineno}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []


def test_global_random_state_is_seeded_in_one_place_only():
    """Only `runtime.global_seed`, which restores it, may: dropout has no generator argument."""
    seeders = [
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("torch.manual_seed", "np.random.seed", "random.seed")
    ]
    assert seeders == ["runtime"]


@pytest.mark.parametrize(
    "modules",
    [
        [f"ddpm_eval.{name}" for name in LIGHT],
        [f"experiments.{name}" for name in EXPERIMENTS if name not in COMPUTING],
        ["cli"],
    ],
    ids=["library", "experiments", "cli"],
)
def test_reporting_does_not_import_torch(modules):
    code = "import importlib, json, sys\nfor name in {}: importlib.import_module(name)\nprint(json.dumps(list(sys.modules)))"
    loaded = {name.split(".")[0] for name in json.loads(run_python(code.format(modules)))}
    assert not loaded & {"torch", "torchvision", "torch_fidelity", "safetensors", "sklearn"}
    if modules == ["cli"]:  # help must be quick
        assert not loaded & {"h5py", "pandas", "scipy", "matplotlib", "pydantic"}


def test_analysis_and_figures_do_not_import_h5py_either():
    loaded = run_python(
        "import sys, ddpm_eval.analyse, ddpm_eval.render, ddpm_eval.report, ddpm_eval.stratified\n"
        "print({name.split('.')[0] for name in sys.modules} & {'h5py', 'torch'})"
    )
    assert loaded.strip() == "set()"


def test_the_command_report_needs_no_torch(tmp_path):
    code = f"""
import sys
class NotInstalled:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "torch_fidelity", "safetensors"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
import numpy as np
from ddpm_eval.results.records import ReferenceImages
from ddpm_eval.results.store import Store
from experiments.workspace import Workspace
from pathlib import Path
folder = Workspace("digits", runs=Path({str(tmp_path / "runs")!r})).folder()
images = ReferenceImages(images=np.zeros((2, 1, 8, 8), np.uint8), name="digits", split="train")
Store(folder / "results.h5").put("reals", images, key="k", provenance={{"weights": "w"}})
import cli
cli.main(["report", "--runs", {str(tmp_path / "runs")!r}, "--reports", {str(tmp_path / "reports")!r}], standalone_mode=False)
"""
    assert "Report:" in run_python(code)
    assert (tmp_path / "reports" / "digits" / "report.md").exists()


def test_every_function_is_short():
    """Median under ten lines, none over sixty, a training loop under eighty (STYLE): docstrings are not
    counted.
    """
    lengths = {}
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lengths[f"{name}.{node.name}"] = body[-1].end_lineno - body[0].lineno + 1 if body else 0
    assert sorted(lengths.values())[len(lengths) // 2] < 10
    assert {name: n for name, n in lengths.items() if n > 60} == {}
