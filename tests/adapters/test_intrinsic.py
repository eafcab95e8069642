"""Subspaces of all weights: the Walsh-Hadamard transform, the projection, and sizes that do not fit."""

import pytest
import torch

from adapters.intrinsic import IntrinsicSubspace
from adapters.walsh_hadamard import hadamard_factors, walsh_hadamard
from common.errors import ConfigError
from tests.methods import config_for


@pytest.mark.parametrize("size", [1, 2, 8, 64, 128, 4096])
def test_walsh_hadamard_is_the_matrix(size):
    h = torch.ones(1, 1, dtype=torch.float64)
    while len(h) < size:
        h = torch.kron(h, torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64))
    x = torch.randn(3, size, dtype=torch.float64)
    factors = [factor.double() for factor in hadamard_factors(size)]
    assert torch.allclose(walsh_hadamard(x, factors), x @ h)


@pytest.mark.parametrize("case", ["intrinsic_model", "intrinsic dense", "intrinsic_said", "intrinsic normalized"])
def test_the_projection_nearly_keeps_lengths_and_is_drawn_again(case):
    config = config_for(case, intrinsic_dim=60)
    subspace, again = (IntrinsicSubspace(config, [5000, 300]) for _ in range(2))
    columns = []
    for k in range(20):
        with torch.no_grad():
            for one in (subspace, again):
                one.theta.zero_()
                one.theta[k] = 1
        assert torch.equal(subspace.delta(0, torch.float32), again.delta(0, torch.float32))
        columns.append(subspace.delta(0, torch.float64))
    gram = torch.stack(columns) @ torch.stack(columns).T
    assert torch.allclose(gram, torch.eye(20, dtype=torch.float64), atol=0.1)
    other = IntrinsicSubspace(config_for(case, intrinsic_dim=60, intrinsic_seed=1), [5000, 300])
    with torch.no_grad():
        other.theta[19] = 1
    assert not torch.allclose(other.delta(0, torch.float32), subspace.delta(0, torch.float32), atol=1e-3)
    other.check_saved({other.fingerprint: other.fingerprint})
    with torch.no_grad():
        other.fingerprint.copy_(subspace.fingerprint)
    with pytest.raises(ConfigError, match="cannot be reproduced"):
        other.check_saved({other.fingerprint: other.fingerprint})


@pytest.mark.parametrize(
    ("case", "keys", "sizes", "words"),
    [
        ("intrinsic_model", {}, [9, 9], "has only 18 parameters"),
        ("intrinsic_said", {"intrinsic_dim": 2}, [9, 9], "intrinsic_dim is 2"),
        ("intrinsic dense", {}, [10**9], 'intrinsic_projection is "dense"'),
    ],
)
def test_what_does_not_fit_the_model(case, keys, sizes, words):
    with pytest.raises(ConfigError, match=words):
        IntrinsicSubspace(config_for(case, **keys), sizes)
