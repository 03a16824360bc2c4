"""Bars on stderr for each stage."""

from ddpm_eval.api.progress_bars import shown
from ddpm_eval.runtime import silent


def test_each_stage_has_a_bar_of_its_own(capsys):
    with shown(True) as progress:
        for done in (1, 2, 3):
            progress("first", done, 3)
        progress("second", 5, 10)
        progress("second", 2, 10)  # a new beginning
    out, err = capsys.readouterr()
    assert out == ""
    assert "first: 100%" in err and "3/3" in err
    assert "5/10" in err and "2/10" in err


def test_no_bar_is_shown_where_none_is_wanted(capsys):
    with shown(False) as progress:
        assert progress is silent
        progress("first", 1, 1)
    assert capsys.readouterr() == ("", "")


def test_a_function_is_called_as_it_is():
    seen = []
    with shown(lambda *event: seen.append(event)) as progress:
        progress("first", 1, 2)
    assert seen == [("first", 1, 2)]
