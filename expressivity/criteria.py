"""Criteria, by the names used in configuration files."""

import torch
from torch import nn


class CrossEntropy(nn.Module):
    """Cross-entropy of the outputs' distribution relative to that of the targets, both given by logits.

    Unlike torch.nn.CrossEntropyLoss it is smallest where the output equals the target, since that has logits as well.
    """

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """output, target: (.., classes) -> the mean over all but the last dimension."""
        return -(target.softmax(-1) * output.log_softmax(-1)).sum(-1).mean()


CRITERIA = {"mse": nn.MSELoss, "l1": nn.L1Loss, "huber": nn.HuberLoss, "cross_entropy": CrossEntropy}
