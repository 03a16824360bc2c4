"""``interpolate``: the figure, and what is refused."""

import pandas as pd
from command_line import call, refuse


def test_images_between_pairs_are_drawn(trained_run, tmp_path):
    out = tmp_path / "between"
    assert f"{out}.png" in call("interpolate", trained_run, "--t", "7", "--pairs", "2", "--out", out)
    assert out.with_suffix(".png").exists()
    assert set(pd.read_csv(out.with_suffix(".csv"))["image"]) == {0, 1}
    assert "this chain has times 1 to 20" in refuse("interpolate", trained_run, "--t", "21", "--out", out)
    assert "180 pairs" not in refuse("interpolate", trained_run, "--pairs", "181", "--out", out)
