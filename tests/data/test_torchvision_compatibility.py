"""The import of torchvision, each time in a process of its own."""

import subprocess
import sys
import textwrap

import pytest

SHIM = """
    import sys
    import torch
    from ddpm_eval.data import datasets, torchvision_compatibility
    early = [name for name in sys.modules if name.startswith("torchvision")]
    assert not early, "torchvision is imported too early"
"""


def run(code, path=""):
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        f"import sys; sys.path.insert(0, {str(path)!r})\n" + textwrap.dedent(SHIM + code),
    ]
    subprocess.run(command, check=True, timeout=120)


def package(tmp_path, body):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(textwrap.dedent(body))
    (tmp_path / "torchvision" / "datasets.py").write_text("")


@pytest.mark.slow
def test_torchvision_and_torch_fidelity_can_be_imported():
    run("""
    torchvision = torchvision_compatibility.import_torchvision()
    assert torchvision_compatibility.import_torchvision() is torchvision
    import torch_fidelity
    torchvision.datasets.MNIST, torchvision.transforms.Resize
    """)


@pytest.mark.slow
def test_missing_operators_are_declared_only_when_they_are_missing(tmp_path):
    package(
        tmp_path,
        """
        import torch
        for name in ("nms", "qnms"):
            @torch.library.register_fake(f"torchvision::{name}")
            def fake(dets, scores, iou_threshold): ...
        """,
    )
    run(
        """
    try:
        import torchvision
    except RuntimeError as error:
        assert "operator torchvision::nms does not exist" in str(error)
    else:
        raise AssertionError("the imitation of a wheel that does not fit is imported as it is")
    torchvision_compatibility.import_torchvision()
    torchvision_compatibility.import_torchvision()
    assert len(torchvision_compatibility.declared) == 1
    """,
        tmp_path,
    )


@pytest.mark.slow
def test_fitting_torchvision_is_left_alone_and_a_broken_one_is_a_sentence(tmp_path):
    package(
        tmp_path,
        """
        import torch
        library = torch.library.Library("torchvision", "DEF")  # fails if anything was declared before
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        """,
    )
    (tmp_path / "broken").mkdir()
    package(tmp_path / "broken", "raise RuntimeError('compiled with another CUDA')")
    run(
        f"""
    torchvision_compatibility.import_torchvision()
    assert torchvision_compatibility.declared == []
    del sys.modules["torchvision"]
    sys.path.insert(0, {str(tmp_path / "broken")!r})
    try:
        torchvision_compatibility.import_torchvision()
    except ValueError as error:
        assert "compiled with another CUDA (install" in str(error)
    else:
        raise AssertionError("a broken torchvision is imported")
    """,
        tmp_path,
    )
