"""The memo of chosen contractions."""

import torch

from t3nsor.contraction.engine import contraction_for
from tests.t3nsor.contraction.cases import small


def test_one_contraction_serves_operands_of_the_same_shapes_and_dtypes():
    cores, x = list(small().cores), torch.zeros(1000, 12, dtype=torch.float64)
    chosen = contraction_for(x, cores, False, False)
    for same in (x, x[:900], x.view(10, 100, 12)):  # all counted as 1,024 rows
        assert contraction_for(same, cores, False, False) is chosen
    assert chosen.training(True, False) is chosen.training(True, False) is not chosen.training(True, True)
    for other in ((x[:300], cores, False, False), (x.float(), cores, False, False), (x, cores, False, True)):
        assert contraction_for(*other) is not chosen
    assert contraction_for(x, cores, False, False, "full") is not chosen
