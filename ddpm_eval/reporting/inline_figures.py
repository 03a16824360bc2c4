"""Figures within the page itself: SVG in the page's colours, with names of its own, and images as PNG.

A page has one space of names, and matplotlib uses the same ones in every figure; so each figure's names get
its own in front. Colours become those of the page, which has a light and a dark set.
"""

import re
from html import escape
from pathlib import Path

from ddpm_eval.reporting.colours import GREY, LIGHT
from ddpm_eval.reporting.mosaics import data_uri

PAGE_COLOURS = {
    **{colour: f"var(--colour-{position})" for position, colour in enumerate(LIGHT)},
    **dict.fromkeys(("#000000", "#262626"), "var(--ink)"),
    **dict.fromkeys((GREY, "#666666"), "var(--soft)"),
    **dict.fromkeys(("#e6e6e6", "#cccccc"), "var(--line)"),
    "#ffffff": "var(--paper)",
}
"""What stands in the page for a colour of a figure's file."""


def inline_svg(path: Path, name: str, alternative: str) -> str:
    """Return an SVG file as an element of a page.

    Args:
        path: of the file.
        name: of the figure, distinct in the page.
        alternative: what the figure shows.
    """
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href=", "href=")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda found: PAGE_COLOURS.get(found[0], found[0]), text)
    label = f'<svg role="img" aria-label="{escape(alternative, quote=True)}" '
    return text.replace("<svg ", label, 1).strip()


def inline_png(path: Path) -> str:
    """Return the address under which a page holds a PNG file within itself."""
    return data_uri(path.read_bytes())
