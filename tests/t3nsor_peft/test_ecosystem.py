"""What peft, transformers, torch and accelerate do with models that have adapters."""

import accelerate
import peft
import pytest
import torch
import transformers
from packaging.version import Version
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForSeq2SeqLM,
    AutoPeftModelForSequenceClassification,
    PeftModel,
    get_peft_model,
)
from peft.utils.hotswap import hotswap_adapter
from torch import nn

from tests.t3nsor_peft.models import ARCHITECTURES, METHODS, config_of, ids, logits, perturb

# peft 0.20 looks in its model for a method that transformers has renamed.
PEFT_021 = pytest.mark.skipif(Version(peft.__version__) < Version("0.21"), reason="needs peft 0.21")
PLAIN = ["tt_lora", "meta_tt", "tt_adapter"]
LLAMA = ARCHITECTURES["llama"]


def saved(directory, method: str, seed: int = 0, **changes) -> torch.Tensor:
    """Save an adapter of the tiny Llama, and return its logits."""
    model = get_peft_model(LLAMA.model(), config_of(method, LLAMA, **changes)).eval()
    perturb(model, seed)
    model.save_pretrained(directory)
    return logits(model, LLAMA.inputs())


# Exchanging adapters in place.


@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("tt_lora")])
def test_an_adapter_is_exchanged_in_place(method, tmp_path):
    expected = [saved(tmp_path / str(seed), method, seed) for seed in (0, 1)]
    model = PeftModel.from_pretrained(LLAMA.model(), tmp_path / "0").eval()
    parameters = dict(model.named_parameters())
    for seed in (1, 0):
        hotswap_adapter(model, str(tmp_path / str(seed)), "default", torch_device="cpu")
        assert torch.equal(logits(model, LLAMA.inputs()), expected[seed])
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())


@pytest.mark.parametrize("changes", [{"r": 2}, {"lora_alpha": 3}, {"ring": True}, {"tt_shape": [[2, 16], [16, 2]]}])
def test_an_adapter_of_another_configuration_is_not_exchanged(changes, tmp_path):
    options = {"target_modules": ["q_proj", "o_proj"]}
    expected = saved(tmp_path / "own", "tt_lora", **options)
    saved(tmp_path / "other", "tt_lora", **options, **changes)
    model = PeftModel.from_pretrained(LLAMA.model(), tmp_path / "own").eval()
    with pytest.raises(ValueError, match="Configs are incompatible"):
        hotswap_adapter(model, str(tmp_path / "other"), "default", torch_device="cpu")
    assert torch.equal(logits(model, LLAMA.inputs()), expected)


@pytest.mark.parametrize("method", ["meta_tt", "tt_adapter"])
def test_other_methods_are_not_exchanged(method, tmp_path):
    saved(tmp_path, method)
    model = PeftModel.from_pretrained(LLAMA.model(), tmp_path)
    with pytest.raises(ValueError, match="Hotswapping only supports LORA, TT_LORA"):
        hotswap_adapter(model, str(tmp_path), "default", torch_device="cpu")


# Loading by peft's own classes.


@pytest.mark.parametrize(
    ("name", "auto", "task"),
    [
        ("llama", AutoPeftModelForCausalLM, "CAUSAL_LM"),
        pytest.param("t5", AutoPeftModelForSeq2SeqLM, "SEQ_2_SEQ_LM", marks=PEFT_021),
        ("bert", AutoPeftModelForSequenceClassification, "SEQ_CLS"),
    ],
)
@pytest.mark.parametrize("method", PLAIN)
def test_peft_finds_base_model_and_adapter(name, auto, task, method, tmp_path):
    architecture = ARCHITECTURES[name]
    architecture.model().save_pretrained(tmp_path / "base")
    base = type(architecture.model()).from_pretrained(tmp_path / "base")
    model = get_peft_model(base, config_of(method, architecture, task_type=task)).eval()
    perturb(model)
    model.save_pretrained(tmp_path / "adapter")
    options = {"num_labels": 3} if name == "bert" else {}
    again = auto.from_pretrained(tmp_path / "adapter", **options).eval()
    assert torch.equal(logits(again, architecture.inputs()), logits(model, architecture.inputs()))


# Compilation.


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("method", ["tt_lora", "tt_lora ring", "tt_lora svd", "meta_tt", "tt_adapter"])
def test_compilation_finds_one_graph_with_the_same_gradients(method):
    cls, fields = METHODS[method]
    model = get_peft_model(Tiny(), cls(**{"r": 2, "target_modules": ["first", "second"]} | fields))
    perturb(model)
    x, found = torch.randn(5, 16), []
    torch._dynamo.reset()
    for call in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        y = call(x)
        y.square().mean().backward()
        found.append([y, *(p.grad for p in model.parameters() if p.requires_grad)])
    assert len(found[0]) > 4
    for eager, compiled in zip(*found, strict=True):
        assert torch.allclose(eager, compiled, rtol=1e-4, atol=1e-6)


# Batches of several adapters.


@pytest.mark.parametrize("name", ["t5", "whisper"])
@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("beams", [1, 3])
def test_each_row_is_generated_as_if_it_were_alone(name, method, beams):
    architecture = ARCHITECTURES[name]
    model = get_peft_model(architecture.model(), config_of(method, architecture)).eval()
    model.add_adapter("other", config_of(method, architecture))
    for seed, adapter in enumerate(("other", "default")):
        model.set_adapter(adapter)
        perturb(model, seed)
    inputs = {key: value for key, value in architecture.inputs().items() if not key.startswith("decoder_")}
    options = {"num_beams": beams, "max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    names = ["other", "__base__", "default"]
    together = model.generate(**inputs, **options, adapter_names=names)
    for row, adapter in enumerate(names):
        own = {key: value[row : row + 1] for key, value in inputs.items()}
        if adapter == "__base__":
            with model.disable_adapter():
                alone = model.generate(**own, **options)
        else:
            model.set_adapter(adapter)
            alone = model.generate(**own, **options)
        assert torch.equal(together[row], alone[0])
    assert len({tuple(row) for row in together.tolist()}) > 1


@pytest.mark.parametrize("method", PLAIN)
def test_modules_that_are_trained_whole_take_part_in_mixed_batches(method):
    architecture = ARCHITECTURES["bert"]
    inputs, names = architecture.inputs(), ["other", "__base__", "default"]
    outputs = {"__base__": logits(architecture.model(), inputs)}
    model = get_peft_model(architecture.model(), config_of(method, architecture)).eval()
    model.add_adapter("other", config_of(method, architecture))
    for seed, adapter in enumerate(("other", "default")):
        model.set_adapter(adapter)
        perturb(model, seed)
        outputs[adapter] = logits(model, inputs)
    heads = model.base_model.model.classifier.modules_to_save
    assert not torch.equal(heads["default"].weight, heads["other"].weight)
    mixed = logits(model, inputs, adapter_names=names)
    for row, adapter in enumerate(names):
        assert torch.allclose(mixed[row], outputs[adapter][row], atol=1e-5)


# Training by transformers and accelerate.


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, k: int) -> dict[str, torch.Tensor]:
        row = {key: value[0] for key, value in ids(rows=1).items()}
        row["input_ids"] = (row["input_ids"] + k) % 60 + 3
        return row | {"labels": row["input_ids"]}


def trainer(directory, method: str, steps: int = 4) -> transformers.Trainer:
    torch.manual_seed(0)
    model = get_peft_model(LLAMA.model(), config_of(method, LLAMA))
    arguments = transformers.TrainingArguments(
        str(directory),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=0.02,
        lr_scheduler_type="constant",
        gradient_checkpointing=True,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    return transformers.Trainer(model, arguments, train_dataset=Rows(), eval_dataset=Rows())


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated and will be:FutureWarning")
@pytest.mark.parametrize("method", PLAIN)
def test_trainer_resumes_to_the_same_bits_and_loads_the_best(method, tmp_path):
    whole = trainer(tmp_path / "whole", method)
    whole.train()
    evaluations = [line["eval_loss"] for line in whole.state.log_history if "eval_loss" in line]
    assert evaluations[1] < evaluations[0]
    assert whole.evaluate()["eval_loss"] == pytest.approx(min(evaluations), rel=1e-6)
    trainer(tmp_path / "parts", method, steps=2).train()
    resumed = trainer(tmp_path / "parts", method)
    resumed.train(resume_from_checkpoint=True)
    pairs = zip(whole.model.named_parameters(), resumed.model.named_parameters(), strict=True)
    assert all(name == other and torch.equal(p, q) for (name, p), (other, q) in pairs)
    again = PeftModel.from_pretrained(LLAMA.model(), whole.state.best_model_checkpoint).eval()
    assert torch.equal(logits(again, LLAMA.inputs()), logits(whole.model.eval(), LLAMA.inputs()))


@pytest.mark.parametrize("method", PLAIN)
def test_accelerate_trains_and_unwraps(method, tmp_path):
    accelerator = accelerate.Accelerator(cpu=True)
    model = get_peft_model(LLAMA.model(), config_of(method, LLAMA))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.005)
    model, optimizer, batches = accelerator.prepare(model, optimizer, torch.utils.data.DataLoader(Rows(), 4))
    losses = []
    for _ in range(3):
        for batch in batches:
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[-2] < losses[0]
    assert losses[-1] < losses[1]
    state = accelerator.get_state_dict(model)
    accelerator.unwrap_model(model).save_pretrained(tmp_path, state_dict=state)
    again = PeftModel.from_pretrained(LLAMA.model(), tmp_path).eval()
    assert torch.equal(logits(again, LLAMA.inputs()), logits(model.eval(), LLAMA.inputs()))
