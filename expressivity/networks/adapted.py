"""A frozen random network with a trained update of every weight.

How near does a frozen network come to a target of the same size if its weights may move only within a family? Zeng and
Lee 2023, "The Expressive Power of Low-Rank Adaptation" (https://arxiv.org/abs/2310.17513), ask this of updates of low
rank, as in LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685). The output of layer l is

    phi(x W_l + b_l + x D_l + c_l)

with W_l (width, width) and b_l (width,) frozen, D_l a member of the family, and c_l zero unless `train_bias`. D_l is
parallel to W_l because it is no matrix if there is an activation between its cores.
"""

import math
from functools import partial

import torch
from torch import nn

from expressivity.networks.deep import LAYERS, DeepNetwork, gains
from t3nsor import linear_shape, random_matrix, zero_delta
from t3nsor.cores import close_cores
from t3nsor.cross_layer import near_identity

CROSS_LAYER = "tt_cross_layer"
UPDATES = [name for name in LAYERS if name != "quantized"]  # no quantised weight is zero


class AdaptedNetwork(nn.Module):
    """A frozen `DeepNetwork` of full matrices, and a trained update of its layers that is zero at the start.

    width: width of all layers.
    depth: number of linear layers.
    update: structure of the updates: one of UPDATES, or "tt_cross_layer" for one tensor train for all layers.
    activation: name of the activation, or a module.
    bias: whether the frozen layers have biases.
    train_bias: whether updates of the biases are trained, too.
    options: keywords of the updates, such as rank, diagonals, d or activation_between_cores.

    The frozen network is drawn first: with equal seeds it is the same for every update, and equal to the DeepNetwork.

    Raises ValueError for an unknown update or activation, or an invalid depth.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        update: str = "low_rank",
        activation: str | nn.Module = "relu",
        bias: bool = True,
        train_bias: bool = False,
        **options,
    ):
        super().__init__()
        if update not in UPDATES and update != CROSS_LAYER:
            raise ValueError(f"unknown update {update!r}; allowed: {', '.join(UPDATES)}, {CROSS_LAYER}")
        self.frozen = DeepNetwork(width, depth, "full", activation, bias).requires_grad_(False)
        make = CrossLayerUpdates if update == CROSS_LAYER else partial(SeparateUpdates, LAYERS[update])
        self.updates = make(width, gains(depth), **options)
        self.biases = nn.Parameter(torch.zeros(depth, width)) if train_bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., width) -> (.., width)."""
        activations = [*self.frozen.activations, nn.Identity()]
        for number, (layer, activation) in enumerate(zip(self.frozen.layers, activations, strict=True)):
            y = layer(x) + self.updates(x, number)
            x = activation(y if self.biases is None else y + self.biases[number])
        return x

    @torch.no_grad()
    def draw_update(self) -> None:
        """Draw a typical update that is not zero, so that the network is a target which its family contains.

        The entries of the updates have mean 0 and, averaged over a matrix, the variance 2 gain^2 / width: that of the
        difference of two matrices of `DeepNetwork`. Where the structure has zeros, its other entries are larger. With
        an activation between the cores, these are drawn as if there were none.
        """
        self.updates.draw()
        if self.biases is not None:  # the difference of two biases of DeepNetwork
            first, second = torch.rand_like(self.biases), torch.rand_like(self.biases)
            self.biases.copy_(2 * (first - second) / math.sqrt(self.biases.shape[1]))


class SeparateUpdates(nn.Module):
    """One update for each layer: layers of one structure, all but the last factor or core of each random.

    layer: a class of LAYERS.
    width: width of the layers.
    gains: gain of each layer.
    options: keywords of `layer`.
    """

    def __init__(self, layer: type[nn.Module], width: int, gains: list[float], **options):
        super().__init__()
        self.make, self.gains = partial(layer, width, bias=False, **options), gains
        self.layers = nn.ModuleList(self.make(gain) for gain in gains)
        for update in self.layers:
            nn.init.zeros_(list(update.parameters())[-1])

    def forward(self, x: torch.Tensor, number: int) -> torch.Tensor:
        """x: (.., width) -> (.., width), for the layer with this number."""
        return self.layers[number](x)

    def draw(self) -> None:
        """Draw all factors or cores."""
        for update, gain in zip(self.layers, self.gains, strict=True):
            update.load_state_dict(self.make(math.sqrt(2) * gain).state_dict())


class CrossLayerUpdates(nn.Module):
    """One tensor train for the updates of all layers, with the layer as an additional mode.

    As in MetaTT (Lopez-Piqueres et al. 2025, https://arxiv.org/abs/2506.09105), without its mode for types of matrices:

        D_l = G_1 L_l G_2 .. G_d,    L: (r, depth, r), G_k: (r_{k-1}, n_k, m_k, r_k), r = r_1

    Only G_d starts at zero.

    width: width of the layers.
    gains: gain of each layer.
    rank: one inner rank or the list of the d - 1 inner ranks.
    d: number of cores G_k.

    Raises ValueError if d is 1: L stands between two cores.
    """

    def __init__(self, width: int, gains: list[float], rank: int | list[int], d: int = 2):
        super().__init__()
        shape = linear_shape(width, width, rank=rank, d=d)
        if len(shape[0]) < 2:
            raise ValueError(f"d is {d}; for {CROSS_LAYER} it must be at least 2")
        self.gains = gains
        self.matrix = zero_delta(shape, rank, trainable=True)
        self.layer = nn.Parameter(near_identity(self.matrix.ranks[1], len(gains)))

    def delta(self, number: int) -> torch.Tensor:
        """D_l, (width, width), of the layer with this number."""
        first, *rest = self.matrix.cores()
        return close_cores([first @ self.layer[:, number], *rest])

    def forward(self, x: torch.Tensor, number: int) -> torch.Tensor:
        """x: (.., width) -> (.., width), for the layer with this number."""
        return x @ self.delta(number)

    def draw(self) -> None:
        """Draw all G_k, and L_l ~ N(0, gain_l^2 / r), so that the sum over the additional bond adds no variance."""
        std = math.sqrt(2 / self.matrix.shape[0])
        self.matrix.copy_(random_matrix(self.matrix.raw_shape, self.matrix.inner_ranks, std))
        scale = self.layer.new_tensor(self.gains)[:, None] / math.sqrt(len(self.layer))
        self.layer.copy_(torch.randn_like(self.layer) * scale)
