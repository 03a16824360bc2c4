"""The dictionary of columns is complete in itself; the tests of reports hold it to the files."""

from experiments.csv_columns import COLUMNS, COMPARISON, REPORT


def test_every_file_is_described_once_and_every_shared_column_is_used():
    for files in (REPORT, COMPARISON):
        names = [name for file in files for name in file.names.split()]
        assert len(set(names)) == len(names)
    used = {name for file in (*REPORT, *COMPARISON) for name in file.described() if name not in file.own}
    assert used == set(COLUMNS)
    for file in (*REPORT, *COMPARISON):
        assert set(file.own) <= set(file.columns.split())


def test_every_column_has_a_meaning_and_numbers_have_a_unit():
    for file in (*REPORT, *COMPARISON):
        assert all(column.meaning for column in file.described().values())
    assert COLUMNS["rmse_255"].unit == "8-bit levels" and COLUMNS["bits_per_dim"].unit == "bits/dim"
