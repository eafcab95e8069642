"""The benchmarks of expressivity run and print what they found."""

import pytest

SCRIPT = "benchmarks/expressivity.py"


def test_it_prints_a_row_per_case(run_script):
    cases = ("n_diagonal", "transformer_4")
    options = ["--epochs", 1, "--targets", 2, "--rounds", 1, "--threads", 1]
    status, (first, header, *rows), errors = run_script(SCRIPT, "--cases", *cases, *options)
    assert status == 0, errors
    assert "1 threads" in first
    assert header.split()[:3] == ["case", "weights", "together"]
    assert [row.split()[:3] for row in rows] == [["n_diagonal", "100", "10"], ["transformer_4", "212", "6"]]
    for row in rows:
        together, alone, *ratios = (float(cell.replace(",", "")) for cell in row.split()[3:] if cell != "to")
        assert together > 0 < alone
        assert min(ratios) >= 0


def test_wrong_arguments_end_in_one_line(run_script):
    for wrong in (["--rounds", "0"], ["--cases", "n_diagnal"], ["--round_s", "2"]):
        status, _, errors = run_script(SCRIPT, *wrong)
        assert (status, len(errors)) == (2, 1)
        assert errors[0].startswith("error: ")


@pytest.mark.slow
def test_the_verdicts_of_known_comparisons(run_script):
    """Of few pairs; docs/expressivity.md has the counts of all."""
    status, lines, errors = run_script("benchmarks/verdicts.py", "--pairs", 2)
    assert status == 0, errors
    equal, gap = lines
    assert equal.startswith("equal: 2 pairs, 2 statistics: ")
    assert "wrong" not in equal
    assert gap.startswith("gap: 2 pairs, 2 statistics: right 4 (100.0%)")
