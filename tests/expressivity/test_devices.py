import torch

from expressivity.devices import ON_A_CPU, stack_limits
from expressivity.randomness import seeded


def test_every_device_is_seeded_and_restored(monkeypatch):
    generators = [torch.Generator().manual_seed(k) for k in (1, 2)]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "default_generators", tuple(generators))
    before = [generator.get_state() for generator in generators]
    with seeded("key"):
        drawn = [torch.rand(1, generator=generator) for generator in (torch.default_generator, *generators)]
    assert drawn[0] == drawn[1] == drawn[2]
    assert all(torch.equal(g.get_state(), state) for g, state in zip(generators, before, strict=True))


def test_stacks_fill_a_part_of_a_gpu(monkeypatch):
    assert stack_limits(torch.device("cpu")) == ON_A_CPU
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**36, 2**37))
    networks, limit = stack_limits(torch.device("cuda"))
    assert ON_A_CPU[0] < networks <= 65_535
    assert limit == 2**34
