"""torch-fidelity can be imported beside any torch."""

import subprocess
import sys


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_torch_fidelity_imports_in_a_fresh_process_whether_or_not_torchvisions_operators_fit():
    run = run_python(
        "import ddpm_eval.metrics.fidelity, torchvision, torch_fidelity; torch_fidelity.calculate_metrics"
    )
    assert run.returncode == 0, run.stderr
