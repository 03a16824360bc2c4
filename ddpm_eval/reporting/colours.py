"""Which colour means what, in all figures: on white paper, and on a light and a dark page."""

MEANINGS = {
    **{"eps": 0, "mu": 1, "x0": 2, "v": 3, "score": 4},
    **{"ancestral": 0, "ddim": 1},
    **{"fixed-large": 0, "fixed-small": 1, "optimal": 2, "learned": 3},
    **{"full": 0, "stratified": 1},
    **{"L": 5, "L_simple": 7},
}
"""Names of lines and the positions of their colours."""
LIGHT = ("#00558c", "#c26a00", "#00785a", "#a8448c", "#8a5a2b", "#5b5bd0", "#b3261e", "#4d6b12")
"""Colours of lines: at least 3:1 on white, so that they are seen by everybody."""
DARK = ("#6cb6ff", "#ffa657", "#4cc79a", "#e58fd0", "#d2a679", "#a5a5ff", "#ff8a80", "#a6c34c")
"""The same on a dark page."""
GREY = "#595959"
"""What is not measured here: the paper's numbers, yardsticks, floors and thresholds."""


def colour_index(name: str, position: int) -> int:
    """Return the position in `LIGHT` of a line's colour: that of its meaning, else its own position."""
    return MEANINGS.get(name, position) % len(LIGHT)
