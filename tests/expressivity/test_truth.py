"""Closed forms against slow references: minimisation from many starts, and brute force."""

import itertools

import numpy
import pytest
import torch
from scipy.optimize import minimize

from expressivity import ExpressivityError
from expressivity.networks import AdaptedNetwork, DeepNetwork, Transformer
from expressivity.scoring import relative_errors, scale_of
from expressivity.truth import closed_form_errors, optimal_errors, rearranged
from t3nsor import TensorRing, TensorTrain

WIDTH = 4
OPTIONS = {"full": {}, "low_rank": {"rank": 2}, "n_diagonal": {"diagonals": 3}}


@pytest.fixture(autouse=True)
def _double(double):
    torch.manual_seed(0)


def rows(count, width=WIDTH):
    """Correlated inputs with a mean, and outputs that no family fits."""
    mix, weight = torch.randn(width, width), torch.randn(width, width)
    pairs = []
    for _ in range(2):
        x = torch.randn(count, width) @ mix + 1.0
        pairs += [x, x @ weight + 3 + 0.5 * torch.randn(count, width)]
    return pairs


def minimised(network, x, y, starts):
    """`network` after minimising its loss by LBFGS from `starts` random starts; the best one."""
    best, kept = float("inf"), None
    trained = [p for p in network.parameters() if p.requires_grad]
    for _ in range(starts):
        for parameter in trained:
            torch.nn.init.normal_(parameter, std=0.5)
        optimizer = torch.optim.LBFGS(
            trained, max_iter=300, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def loss(optimizer=optimizer):
            optimizer.zero_grad()
            value = (network(x) - y).square().mean()
            value.backward()
            return value

        optimizer.step(loss)
        value = loss().item()
        if value < best:
            best, kept = value, [parameter.detach().clone() for parameter in trained]
    with torch.no_grad():
        for parameter, value in zip(trained, kept, strict=True):
            parameter.copy_(value)
    return network


def measured(network, fresh_x, fresh_y):
    """The error as the fitter measures it."""
    criterion = torch.nn.MSELoss()
    where = fresh_x[None], fresh_y[None], torch.tensor([0]), criterion, scale_of(fresh_y[None], criterion), 64
    return relative_errors(lambda x: network(x[0])[None], *where).item()


NETWORKS = {
    f"{kind}, {layer}, {biases}": (make, layer, options)
    for layer in OPTIONS
    for kind, make, biases, options in [
        ("deep", DeepNetwork, "bias", {"bias": True}),
        ("deep", DeepNetwork, "no bias", {"bias": False}),
        ("adapted", AdaptedNetwork, "frozen bias", {"bias": True}),
        ("adapted", AdaptedNetwork, "no bias", {"bias": False}),
        ("adapted", AdaptedNetwork, "trained bias", {"bias": True, "train_bias": True}),
    ]
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_what_minimisation_finds(name):
    make, layer, options = NETWORKS[name]
    network, (x, y, fresh_x, fresh_y) = make(WIDTH, 1, layer, **options, **OPTIONS[layer]), rows(40)
    found = closed_form_errors(network, x, y, fresh_x, fresh_y)
    best = minimised(network, x, y, starts=4 if layer == "low_rank" else 1)
    assert found == pytest.approx(measured(best, fresh_x, fresh_y), rel=1e-5)
    again = closed_form_errors(network, x, y, fresh_x, fresh_y)  # whatever it was trained to
    assert found == pytest.approx(again, rel=1e-12)
    least = closed_form_errors(network, x, y, x, y)
    assert least == pytest.approx(measured(best, x, y), rel=1e-7)


def test_full_rank_is_no_restriction_and_truncation_of_the_weight_is_not_the_optimum():
    x, y, fresh_x, fresh_y = rows(40)
    full = closed_form_errors(DeepNetwork(WIDTH, 1, "full"), x, y, fresh_x, fresh_y)
    for layer, options in (("low_rank", {"rank": WIDTH}), ("n_diagonal", {"diagonals": 2 * WIDTH - 1})):
        assert closed_form_errors(DeepNetwork(WIDTH, 1, layer, **options), x, y, fresh_x, fresh_y) == pytest.approx(
            full
        )
    low = DeepNetwork(WIDTH, 1, "low_rank", bias=False, rank=1)
    u, s, v = torch.linalg.svd(torch.linalg.lstsq(x, y).solution)
    cut = ((x @ (s[0] * u[:, :1] @ v[:1]) - y).square().mean() / (y - y.mean(0)).square().mean()).item()
    assert closed_form_errors(low, x, y, x, y) < 0.99 * cut


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 3])
def test_fewer_rows_than_inputs(name, count):
    make, layer, options = NETWORKS[name]
    network = make(WIDTH, 1, layer, **options, **OPTIONS[layer])
    x, y, _, _ = rows(count)
    fresh_x, fresh_y, _, _ = rows(50)
    assert 0 < closed_form_errors(network, x, y, fresh_x, fresh_y) < float("inf")
    if count > 1:
        least = closed_form_errors(network, x, y, x, y)
        starts = 4 if layer == "low_rank" else 1
        assert least == pytest.approx(measured(minimised(network, x, y, starts), x, y), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("bias", [False, True])
def test_of_many_solutions_it_takes_the_smallest(bias):
    """From three rows, and from many with two inputs that are always equal and one that is constant."""
    few, many = rows(3), rows(30)
    for x in many[::2]:
        x[:, 1], x[:, 2] = x[:, 0], 1.0
    fresh_x, fresh_y, _, _ = rows(50)
    for x, y, _, _ in (few, many):
        x_mean, y_mean = (part.mean(0) if bias else 0.0 for part in (x, y))
        weight = torch.from_numpy(numpy.linalg.pinv((x - x_mean).numpy(), rcond=1e-10)) @ (y - y_mean)
        left = (fresh_x - x_mean) @ weight + y_mean - fresh_y
        error = left.square().mean() / (fresh_y - fresh_y.mean(0)).square().mean()
        network = DeepNetwork(WIDTH, 1, "full", bias=bias)
        assert closed_form_errors(network, x, y, fresh_x, fresh_y) == pytest.approx(error.item())


def test_members_are_imitated_exactly_and_in_float64():
    """Also those of an adapted network, whose frozen part is taken off first; rows have several positions."""
    x, fresh_x = torch.randn(30, 2, WIDTH), torch.randn(20, 2, WIDTH)
    for make, layer, options in NETWORKS.values():
        network = make(WIDTH, 1, layer, **options, **OPTIONS[layer])
        if make is AdaptedNetwork:
            network.draw_update()
        with torch.no_grad():
            y, fresh_y = network(x), network(fresh_x)
        assert closed_form_errors(network, x, y, fresh_x, fresh_y) < 1e-20
        assert closed_form_errors(network.float(), x, y, fresh_x, fresh_y) < 1e-10  # its frozen part is rounded


@pytest.mark.parametrize(
    "network",
    [
        DeepNetwork(4, 2, "full"),
        DeepNetwork(4, 1, "tt", rank=1, d=2),
        AdaptedNetwork(4, 2, "full"),
        AdaptedNetwork(4, 1, "tt", rank=1, d=2),
        AdaptedNetwork(4, 1, "tt_cross_layer", rank=1),
        Transformer(4, 4),
        torch.nn.Linear(4, 4),
    ],
    ids=lambda network: type(network).__name__,
)
def test_other_networks_have_none(network):
    assert closed_form_errors(network.double(), *rows(8)) is None


def least_distance(target, build, sizes, starts=6):
    """min |target - build(factors)|^2 / |target|^2 over factors of these sizes, by BFGS from several starts."""
    ends = list(itertools.accumulate(int(numpy.prod(size)) for size in sizes))

    def value(flat):
        flat = torch.tensor(flat, requires_grad=True)
        parts = [part.view(size) for part, size in zip(flat.tensor_split(ends[:-1]), sizes, strict=True)]
        loss = (target - build(parts)).square().sum()
        loss.backward()
        return loss.item(), flat.grad.numpy()

    random = numpy.random.default_rng(0)
    found = [minimize(value, random.normal(size=ends[-1]), jac=True, tol=1e-10).fun for _ in range(starts)]
    return min(found) / target.square().sum().item()


@pytest.mark.parametrize("width", [4, 6])  # 6 = 2 x 3: modes of different sizes
@pytest.mark.parametrize(
    ("structure", "rank"), [("full", None), ("low_rank", 1), ("low_rank", 3), ("tt", 1), ("tt", 3), ("tr", 1)]
)
@pytest.mark.parametrize("adapted", [False, True])
def test_singular_values_against_brute_force(width, structure, rank, adapted):
    target = torch.randn(width, width)
    frozen = torch.randn(width, width) if adapted else None
    base = frozen if adapted else torch.zeros(width, width)
    modes = 2, width // 2
    builds = {
        "full": (lambda parts: base + parts[0], [(width, width)]),
        "low_rank": (lambda parts: base + parts[0] @ parts[1], [(width, rank), (rank, width)]),
        "tt": (
            lambda parts: base + TensorTrain(parts).full(),
            [(1, modes[0], modes[0], rank), (rank, modes[1], modes[1], 1)],
        ),
        "tr": (
            lambda parts: base + TensorRing(parts).full(),
            [(rank, modes[0], modes[0], rank), (rank, modes[1], modes[1], rank)],
        ),
    }
    found = optimal_errors(target, structure, rank, frozen).item()
    reference = least_distance(target, *builds[structure])
    assert found == pytest.approx(reference, rel=1e-4, abs=1e-9)


def test_a_ring_of_two_cores_has_the_optimum_of_a_train_of_its_squared_rank():
    target = torch.randn(5, 16, 16)
    ring = optimal_errors(target, "tr", 2)
    assert ring.shape == (5,)
    assert torch.equal(ring, optimal_errors(target, "tt", 4))
    build, sizes = lambda parts: TensorRing(parts).full(), [(2, 4, 4, 2), (2, 4, 4, 2)]
    assert ring[0].item() == pytest.approx(least_distance(target[0], build, sizes, starts=2), rel=1e-3)


def test_rearranged_kronecker_products_have_rank_one():
    product = torch.kron(torch.randn(2, 2), torch.randn(3, 3))
    assert torch.linalg.matrix_rank(rearranged(product)) == 1
    assert torch.linalg.matrix_rank(product) == 6


@pytest.mark.parametrize(("layer", "options"), [("low_rank", {}), ("tt", {"d": 2}), ("tr", {"d": 2})])
def test_layers_hold_what_their_structure_says(layer, options):
    """The update that a network draws is imitated exactly at its rank and not below, in the network's own layout."""
    network = AdaptedNetwork(6, 1, layer, rank=2, **options)
    network.draw_update()
    with torch.no_grad():
        frozen, update = network.frozen.layers[0].weight, network.updates(torch.eye(6), 0)
    assert optimal_errors(frozen + update, layer, 2, frozen) < 1e-25
    assert optimal_errors(frozen + update, layer, 1, frozen) > 1e-3


def test_on_many_white_rows_both_truths_agree():
    network = AdaptedNetwork(WIDTH, 1, "low_rank", bias=False, rank=1)
    target, frozen = torch.randn(WIDTH, WIDTH), network.frozen.layers[0].weight
    x, fresh_x = torch.randn(2, 100_000, WIDTH)
    found = closed_form_errors(network, x, x @ target, fresh_x, fresh_x @ target)
    assert found == pytest.approx(optimal_errors(target, "low_rank", 1, frozen).item(), rel=0.02)


def test_deep_linear_networks_add_the_ranks_of_their_updates():
    """Zeng and Lee: with updates of rank r in L layers, the error is that of an update of rank r L of the product."""
    network = AdaptedNetwork(WIDTH, 2, "low_rank", activation="identity", bias=False, rank=1)
    target, x = torch.randn(WIDTH, WIDTH), torch.eye(WIDTH)
    product = network.frozen(x).detach()
    best = minimised(network, x, target, starts=8)
    reached = ((best(x) - target).square().sum() / target.square().sum()).item()
    assert reached == pytest.approx(optimal_errors(target, "low_rank", 2, product).item(), rel=1e-4)


def test_an_unknown_structure_is_an_error():
    with pytest.raises(ExpressivityError, match="structure is 'lora'; allowed: full, low_rank, tt, tr"):
        optimal_errors(torch.eye(4), "lora", 1)
    with pytest.raises(ExpressivityError, match="rank is None; for tt it must be a whole number, at least 1"):
        optimal_errors(torch.eye(4), "tt")
