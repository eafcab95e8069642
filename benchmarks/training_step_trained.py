"""A model in training, for training_step.py: the seconds and the memory of its steps."""

import time
from collections.abc import Callable

import torch
from torch import nn

from seq2seq.memory import LiveBytes


class Trained:
    """A model with one method, and its optimiser: AdamW, as one fused kernel, as transformers' trainer has it."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module], torch.Tensor], device: str, compiled: bool):
        self.model, self.of, self.device = model.train(), loss, device
        self.called = torch.compile(self.model) if compiled else self.model
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.count = sum(parameter.numel() for parameter in self.parameters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def loss(self) -> torch.Tensor:
        return self.of(self.called)

    def step(self) -> float:
        """Take one step; return its seconds."""
        self._wait()
        start = time.perf_counter()
        self.advance()
        self._wait()
        return time.perf_counter() - start

    def advance(self) -> None:
        """Take one step, without waiting for the device."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def own_tensors(self) -> list[torch.Tensor]:
        """Parameters, buffers and the optimiser's state."""
        state = [tensor for state in self.optimizer.state.values() for tensor in state.values()]
        return [*self.model.parameters(), *self.model.buffers(), *state]

    def saved_bytes(self) -> int | None:
        """Bytes of all storages that a forward pass saves for the backward pass, but for those of parameters.

        None for a compiled model, which decides by itself.
        """
        if self.called is not self.model:
            return None
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        saved: dict[int, int] = {}
        kept = []  # so that no storage is freed, and its address used again

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                saved[storage.data_ptr()] = storage.nbytes()
                kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.loss()
        return sum(saved.values())

    def peak_bytes(self) -> int | None:
        """The most live bytes during one step, with parameters and the optimiser's state, but without other models.

        None for a compiled model on a CPU, where torch does not tell.
        """
        if self.device == "cuda":
            return self._peak_of_cuda()
        if self.called is not self.model:
            return None
        with LiveBytes() as memory:
            memory.note(self.own_tensors(), new=False)
            self.step()
        return memory.peak

    def _peak_of_cuda(self) -> int:
        storages = {s.data_ptr(): s.nbytes() for tensor in self.own_tensors() if (s := tensor.untyped_storage())}
        others = torch.cuda.memory_allocated() - sum(storages.values())
        torch.cuda.reset_peak_memory_stats()
        self.step()
        return torch.cuda.max_memory_allocated() - others
