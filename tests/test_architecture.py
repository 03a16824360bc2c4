"""What the code as a whole keeps to: the way of imports, the size of files, the place of libraries."""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ddpm_eval", "experiments")

# A layer may import those before it, never those after it. CONTRIBUTING.md shows the list as a picture.
LAYERS = [
    "ddpm_eval.spec",
    "ddpm_eval.spec_text",
    "ddpm_eval.protocol",
    "ddpm_eval.randomness",
    "ddpm_eval.files",
    "ddpm_eval.host_memory",
    "ddpm_eval.runtime",
    "ddpm_eval.model",
    "ddpm_eval.data",
    "ddpm_eval.results",
    "ddpm_eval.reporting",
    "ddpm_eval.training",
    "ddpm_eval.interchange",
    "ddpm_eval.metrics",
    "ddpm_eval.api",
    "ddpm_eval.stages",
    "ddpm_eval.adapters",
    "experiments",
    "cli",
    "ddpm_eval.__main__",
]
OWNERS = {
    "h5py": {"ddpm_eval.results.hdf5"},
    "safetensors": {"ddpm_eval.training", "ddpm_eval.interchange", "ddpm_eval.metrics"},
    "torch_fidelity": {"ddpm_eval.metrics.fidelity"},
    "seaborn": {"ddpm_eval.reporting"},
    "matplotlib": {"ddpm_eval.reporting"},
    "jinja2": {"ddpm_eval.reporting"},
    "sklearn": {"ddpm_eval.data.digits", "ddpm_eval.data.photos"},
    "click": {
        "experiments.command_line",
        "experiments.commands",
        "experiments.perform",
        "experiments.progress",
    },
}
"""Libraries and the only modules or packages that import them."""
ONE_FILE_PER_COMMAND = "experiments.commands"
"""Its files are named after the commands, and may share a name with what they call."""

MOST_METHODS = 20
MOST_MODULE_LINES = 450
MOST_FUNCTION_LINES = 45
MOST_PARAMETERS = 8
MOST_ANY = 12


@cache
def modules():
    """Return the syntax tree of each module by its dotted name."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    named["cli"] = ROOT / "cli.py"
    return {name.removesuffix(".__init__"): ast.parse(path.read_text()) for name, path in named.items()}


def imported(tree):
    """Return every module that a file imports, at any depth and for type checkers, as dotted names."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def own_imports(name):
    """Return the modules of this project that a module imports."""
    found = set()
    for other in imported(modules()[name]):
        while other and other not in modules():
            other = other.rpartition(".")[0]
        if other.split(".")[0] in (*PACKAGES, "cli") and other not in PACKAGES:
            found.add(other)
    return found - {name}


def layer_of(name):
    """Return the position of a module's layer in `LAYERS`."""
    return max(i for i, layer in enumerate(LAYERS) if name == layer or name.startswith(f"{layer}."))


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(function):
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def run_python(code, *options):
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_lies_in_a_layer():
    outside = [
        name
        for name in modules()
        if name not in PACKAGES and not any(name == layer or name.startswith(f"{layer}.") for layer in LAYERS)
    ]
    assert outside == []


def test_imports_flow_down_the_list_only():
    """Imports inside functions and for type checkers count, too."""
    upwards = {
        (name, other)
        for name in modules()
        if name not in PACKAGES
        for other in own_imports(name)
        if layer_of(other) > layer_of(name)
    }
    assert upwards == set()


def test_no_module_imports_itself_through_others():
    graph = {name: own_imports(name) for name in modules()}
    while leaves := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert graph == {}


@pytest.mark.parametrize("library", OWNERS)
def test_each_format_and_engine_has_one_home(library):
    users = {
        name
        for name, tree in modules().items()
        if library in {module.split(".")[0] for module in imported(tree)}
    }
    owners = OWNERS[library]
    assert users
    assert {
        name for name in users if not any(f"{name}.".startswith(f"{owner}.") for owner in owners)
    } == set()


def test_no_two_files_have_one_name():
    stems = [name.rpartition(".")[2] for name in modules() if not name.startswith(ONE_FILE_PER_COMMAND)]
    assert [stem for stem, count in Counter(stems).items() if count > 1] == []


def test_files_classes_and_functions_stay_small():
    long_modules, wide_classes, long_functions, wide_functions, lengths = {}, {}, {}, {}, []
    for name, tree in modules().items():
        last = max((node.end_lineno for node in tree.body), default=0)
        if last > MOST_MODULE_LINES:
            long_modules[name] = last
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                count = sum(isinstance(part, ast.FunctionDef) for part in node.body)
                if count > MOST_METHODS:
                    wide_classes[f"{name}.{node.name}"] = count
        for function in functions(tree):
            lengths.append(body_lines(function))
            if body_lines(function) > MOST_FUNCTION_LINES:
                long_functions[f"{name}.{function.name}"] = body_lines(function)
            arguments = function.args
            count = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
            count -= bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
            if count > MOST_PARAMETERS and not name.startswith(ONE_FILE_PER_COMMAND):
                wide_functions[f"{name}.{function.name}"] = count
    assert long_modules == {}
    assert wide_classes == {}
    assert long_functions == {}
    assert wide_functions == {}
    assert sorted(lengths)[len(lengths) // 2] < 10


def test_types_are_said():
    """`Any` is rare, and no options are handed through unseen."""
    texts = {name: ast.unparse(tree) for name, tree in modules().items()}
    options = [name for name, text in texts.items() if re.search(r"\*\*\w+: Any", text)]
    assert options == []
    counts = {
        name: sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))
        for name, tree in modules().items()
    }
    counts = {name: count for name, count in counts.items() if count}
    assert sum(counts.values()) <= MOST_ANY, counts


def test_the_library_does_not_print():
    calls = [
        f"{name}:{node.lineno}"
        for name, tree in modules().items()
        if name.startswith("ddpm_eval")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []


def test_global_random_state_is_seeded_in_one_place_only():
    """Only `runtime.global_seed`, which restores it, may: dropout has no generator argument."""
    seeds = ("torch.manual_seed", "np.random.seed", "random.seed")
    seeders = [
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in seeds
    ]
    assert seeders == ["ddpm_eval.runtime"]


def test_each_test_file_names_what_it_tests():
    """tests/PACKAGE/test_MODULE.py belongs to ddpm_eval/PACKAGE/MODULE.py."""
    folders = [path for path in (ROOT / "tests").iterdir() if path.is_dir() and list(path.glob("test_*.py"))]
    strangers = [
        str(path.relative_to(ROOT))
        for folder in folders
        if folder.name != "experiments"
        for path in folder.glob("test_*.py")
        if not (
            ROOT
            / "ddpm_eval"
            / folder.name
            / f"{path.stem.removeprefix('test_').removesuffix('_in_browser')}.py"
        ).exists()
    ]
    assert strangers == []


LIGHT = [
    "ddpm_eval.reporting",
    "ddpm_eval.results.store",
    "experiments.study",
    "experiments.report",
    "experiments.commands.report",
    "cli",
]


@pytest.mark.parametrize("name", LIGHT)
def test_reporting_does_not_import_torch(name):
    code = f"import importlib, json, sys\nimportlib.import_module({name!r})\n"
    code += "print(json.dumps(list(sys.modules)))"
    loaded = {module.split(".")[0] for module in json.loads(run_python(code))}
    assert not loaded & {"torch", "torchvision", "torch_fidelity", "safetensors", "sklearn"}
    if name == "cli":  # help must be quick
        assert not loaded & {"h5py", "pandas", "scipy", "matplotlib", "pydantic", "numpy"}


def test_tables_and_figures_do_not_import_h5py_either():
    reporting = [name for name in modules() if name.startswith("ddpm_eval.reporting")]
    code = f"import importlib, sys\nfor name in {reporting}: importlib.import_module(name)\n"
    loaded = run_python(code + "print({name.split('.')[0] for name in sys.modules} & {'h5py', 'torch'})")
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
from experiments.study import resolve_preset
from pathlib import Path
folder = resolve_preset("digits", runs=Path({str(tmp_path / "runs")!r})).main.folder
images = ReferenceImages(images=np.zeros((2, 1, 8, 8), np.uint8), name="digits", split="train")
Store(folder / "results.h5").put("reference-images", images, key="k", provenance={{"weights": "w"}})
import cli
arguments = ["report", "--runs", {str(tmp_path / "runs")!r}, "--reports", {str(tmp_path / "reports")!r}]
cli.main(arguments, standalone_mode=False)
"""
    assert "Report:" in run_python(code)
    assert (tmp_path / "reports" / "default" / "report.md").exists()


def test_the_picture_of_the_packages_shows_their_imports():
    """Each arrow of the picture is an import, and each import between packages is an arrow."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    picture = re.search(r"```mermaid\n(.*?)```", text, re.DOTALL)
    assert picture, "CONTRIBUTING.md has no picture"
    drawn = set(re.findall(r"(\w+) --> (\w+)", picture[1]))

    def package(name):
        parts = name.split(".")
        return parts[1] if parts[0] == "ddpm_eval" and len(parts) > 2 else parts[0]

    packages = {
        "model",
        "data",
        "results",
        "reporting",
        "training",
        "interchange",
        "metrics",
        "api",
        "stages",
        "adapters",
        "experiments",
        "cli",
    }
    imports = {(package(name), package(other)) for name in modules() for other in own_imports(name)}
    imports = {(a, b) for a, b in imports if a != b and {a, b} <= packages}
    assert drawn == imports


def test_the_public_names_exist_and_are_loaded_when_used():
    names = importlib.import_module("ddpm_eval").__all__
    code = "import sys, ddpm_eval\nprint('torch' in sys.modules)"
    assert run_python(code).strip() == "False"
    assert 10 <= len(names) <= 20
