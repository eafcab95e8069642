"""The update of a weight from the parameters of a layer, entry by entry as the papers write it."""

import torch


def dense_update(layer: torch.nn.Module, adapter: str) -> torch.Tensor:
    """The update of the weight of `layer`, of its shape, in float64."""
    if hasattr(layer, "owners"):
        parameters, place = layer.owners[adapter].meta_tt_cores[adapter], layer.places[adapter]
        middle = parameters.core_layer[:, place.block].double() @ parameters.core_kind[:, place.kind].double()
        first, *rest = [core.detach().double() for core in parameters]
        dense = matrix([torch.einsum("anmb,bc->anmc", first, middle), *rest])
        dense = dense if dense.shape == (layer.in_features, layer.out_features) else dense.T
    else:
        dense = matrix([core.detach().double() for core in layer.tt_lora_cores[adapter]])
        if adapter in layer.tt_lora_start:
            dense = dense - matrix([core.detach().double() for core in layer.tt_lora_start[adapter]])
    dense = layer.scaling[adapter] * dense.detach()
    return dense if layer.fan_in_fan_out else dense.T


def matrix(cores: list[torch.Tensor]) -> torch.Tensor:
    """The dense matrix of a train or a ring of cores (r, n, m, r')."""
    product = cores[0]
    for core in cores[1:]:
        product = torch.einsum("anmb,bpqc->anpmqc", product, core).flatten(1, 2).flatten(2, 3)
    return torch.einsum("anma->nm", product)
