"""Tables in LaTeX: escaped, whole, in the paper's layout, and accepted by pdflatex where there is one."""

import pandas as pd
import pytest
from pdflatex import compile_tables, needs_pdflatex

from ddpm_eval.reporting.latex import LatexLayout
from ddpm_eval.reporting.tables import write_table

LAYOUT = LatexLayout(
    label="Model",
    rows=[r"$L$, fixed $\Sigma$", r"$L_\mathrm{simple}$", "other"],
    columns={"fid": r"FID $\downarrow$", "x": ""},
    groups={0: "Ours", 2: "Theirs"},
    spans=[("measured", 1), ("paper", 1)],
)


@pytest.fixture
def frame():
    """A table of three rows, one of whose columns the layout leaves out."""
    return pd.DataFrame(
        {
            **{"model": ["a", "b", "c"], "x": [1.0, 2.0, 3.0], "x_low": [0.9, 1.9, 2.9]},
            **{"x_high": [1.1, 2.1, 3.1], "n_images": [1, 2, 3], "fid": [3.17, 13.5, None]},
        }
    )


def rows_of(text):
    """Return the cells of every row, spanned ones once."""
    lines = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r"\\")]
    return [line.replace(r"\&", "").split(" & ") for line in lines]


def test_latex_is_escaped_and_every_row_has_all_cells(ablation, tmp_path):
    table = write_table(ablation, tmp_path / "t", r"50% & a_b ~ \x {y} $z$ #1 ^")
    text = (tmp_path / "t.tex").read_text()
    assert (
        r"\caption{50\% \& a\_b \textasciitilde{} \textbackslash{}x \{y\} \$z\$ \#1 \textasciicircum{}}"
        in text
    )
    rows = rows_of(text)
    assert len(rows) == 1 + len(ablation)
    assert {len(cells) for cells in rows} == {len(table.header)}


def test_a_layout_chooses_columns_and_sets_titles_above_rows_and_columns(frame, tmp_path):
    write_table(frame, tmp_path / "t", "Caption.", layout=LAYOUT)
    text = (tmp_path / "t.tex").read_text()
    assert text.splitlines()[6:] == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & \multicolumn{1}{c}{measured} & \multicolumn{1}{c}{paper} \\",
        r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}",
        r"Model & FID $\downarrow$ & x \\",
        r"\midrule",
        r"\multicolumn{3}{l}{\textbf{Ours}} \\",
        r"\quad $L$, fixed $\Sigma$ & 3.17 & 1.00 [0.90, 1.10] \\",
        r"\quad $L_\mathrm{simple}$ & 13.5 & 2.00 [1.90, 2.10] \\",
        r"\addlinespace",
        r"\multicolumn{3}{l}{\textbf{Theirs}} \\",
        r"\quad other & -- & 3.00 [2.90, 3.10] \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    assert (tmp_path / "t.csv").read_text().startswith("model,x,x_low,x_high,n_images,fid\n")


def test_a_layout_of_another_number_of_rows_is_an_error(frame, tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        write_table(frame[:2], tmp_path / "t", "Caption.", layout=LAYOUT)


@pytest.mark.slow
@needs_pdflatex
def test_pdflatex_sets_both_kinds_of_table(ablation, frame, tmp_path):
    texts = {"score": ["≤ 9.46 ± 0.11", *[""] * 5]}
    write_table(ablation, tmp_path / "plain", r"50% & a_b ~ \x {y} $z$ #1 ^", texts=texts)
    write_table(frame, tmp_path / "layout", "Caption.", layout=LAYOUT)
    compile_tables(tmp_path, ["plain", "layout"])
