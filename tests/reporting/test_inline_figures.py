"""Figures within the page keep what they show, in the page's colours and with names of their own."""

import re
import xml.etree.ElementTree as ElementTree

from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.inline_figures import inline_svg
from ddpm_eval.reporting.plots import plot_rate_distortion


def test_names_do_not_collide_and_references_follow(curve, tmp_path):
    write_figure(plot_rate_distortion(curve), curve, tmp_path / "fig5", "c")
    texts = [inline_svg(tmp_path / "fig5.svg", name, "A <text>.") for name in ("one", "two")]
    names = [set(re.findall(r'\bid="([^"]+)"', text)) for text in texts]
    assert names[0] and not names[0] & names[1]
    for text, known in zip(texts, names, strict=True):
        used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text))
        assert used and {a or b for a, b in used} <= known
        root = ElementTree.fromstring(text)
        assert (root.tag, root.get("role"), root.get("aria-label")) == ("svg", "img", "A <text>.")


def test_colours_are_the_pages_and_texts_stay_texts(curve, tmp_path):
    write_figure(plot_rate_distortion(curve), curve, tmp_path / "fig5", "c")
    text = inline_svg(tmp_path / "fig5.svg", "f", "alternative")
    assert "var(--colour-0)" in text
    assert "var(--ink)" in text
    assert not re.search(r"(fill|stroke): #", text)
    assert ">reverse steps taken</text>" in text
    assert "<style" not in text
