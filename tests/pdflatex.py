"""What pdflatex says to tables, where it is installed."""

import shutil
import subprocess

import pytest

needs_pdflatex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")


def compile_tables(folder, names):
    """Let pdflatex set the named tables in one document."""
    inputs = "\n".join(rf"\input{{{name}.tex}}" for name in names)
    text = (
        f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{inputs}\n"
        "\\end{document}\n"
    )
    (folder / "paper.tex").write_text(text)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
