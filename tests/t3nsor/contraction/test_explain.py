"""The printed plans."""

import pytest
import torch

from t3nsor import ShapeError, TRLinear, TTBias, TTLinear, explain, random_matrix


def test_explain_prints_candidates_costs_and_the_choice(capsys):
    explain(TTLinear(768, 3072, rank=2, strategy="two_factor"), 1024)
    text = capsys.readouterr().out
    assert "768" in text
    assert "matrix rank at most 768" in text
    assert "forward, 1024 rows of float32 on cpu, strategy two_factor" in text
    assert "-> " in text
    assert text.count("->") == 3  # the shape of the train, and one choice for each pass
    assert "full (1)(2 3)" in text
    explain(TTLinear(768, 3072, rank=2), 180)
    assert "forward, 180 rows, counted as 128, of float32" in capsys.readouterr().out
    explain(TRLinear(64, 64, rank=2, cores_nonlinearity=torch.relu), 8)
    assert "only one order" in capsys.readouterr().out
    explain(random_matrix(((4, 4), (4, 4)), 2), 8, dtype=torch.bfloat16, beside=True)
    assert "bfloat16 on cpu beside a dense weight" in capsys.readouterr().out


TT = random_matrix(((2, 2), (2, 2)), 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: explain(TTBias(4, d=2), 3), "explain takes a layer with a tensor-train matrix"),
        (lambda: explain(torch.nn.Linear(2, 2), 3), "explain takes a layer"),
        (lambda: explain(TT, 3, dtype="float32"), "dtype is 'float32'; it must be a floating-point torch.dtype"),
        (lambda: explain(TT, 0), "rows is 0; it must be a whole number of at least 1"),
    ],
)
def test_errors_state_what_was_given(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)
