"""docs/peft.md: its walk runs, with a tiny base in place of the real one, and its tables are right."""

import importlib
import re
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftConfig, PeftModel, get_peft_model

import t3nsor_peft
from tests.t3nsor_peft.models import ARCHITECTURES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/peft.md").read_text()
BASE = '"Qwen/Qwen2.5-0.5B"'
WALK = TEXT[: TEXT.index("## Methods")]


@pytest.fixture
def walk(monkeypatch, tmp_path):
    """Run blocks of the walk, by default all but that of a quantised base, in an empty folder; returns their names."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    importlib.import_module("causal_lm").tiny_base(TEXT, tmp_path / "base")
    assert WALK.count(BASE) == 1
    blocks = re.findall(r"```python\n(.*?)```", WALK.replace(BASE, '"base"'), flags=re.DOTALL)
    training, *others, quantised = blocks
    assert "SFTTrainer" in training
    assert "BitsAndBytesConfig" in quantised

    def run(four_bit: bool = False) -> dict:
        names: dict = {}
        for block in [training, quantised] if four_bit else [training, *others]:
            exec(block, names)
        return names

    return run


def loaded(folder: str) -> PeftModel:
    return PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained("base"), folder).eval()


@pytest.mark.filterwarnings("ignore")  # of TRL and what it calls
def test_the_walk_trains_loads_and_merges(walk, capsys):
    pytest.importorskip("trl")
    names = walk()
    losses = [entry["loss"] for entry in names["trainer"].state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert PeftConfig.from_pretrained("mine").peft_type == "TT_LORA"
    assert "import t3nsor_peft" in Path("mine/README.md").read_text()
    assert "Q: What is a train" in capsys.readouterr().out
    merged = transformers.AutoModelForCausalLM.from_pretrained("merged").eval()
    with torch.no_grad():
        batch, adapted = names["batch"], loaded("mine")
        expected = adapted(**batch).logits
        assert torch.allclose(merged(**batch).logits, expected, atol=1e-4)
        with adapted.disable_adapter():
            assert not torch.allclose(adapted(**batch).logits, expected, atol=1e-2)


@pytest.mark.filterwarnings("ignore")
def test_the_walk_with_a_quantised_base(walk):
    pytest.importorskip("trl")
    bitsandbytes = pytest.importorskip("bitsandbytes")
    names = walk(four_bit=True)
    assert any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in names["trainer"].model.modules())
    again = loaded("mine_4bit").merge_and_unload(safe_merge=True)
    assert type(again) is transformers.Qwen2ForCausalLM


def table_of_bases() -> list[tuple[str, str, str]]:
    """(base, code of target_modules, code of further options) of each base."""
    rows = re.findall(r"^\| ([\w\-, ]+) \| `(.*?)` \| `(.*?)`", TEXT, flags=re.MULTILINE)
    return [(base.lower().replace("-", ""), *row) for bases, *row in rows for base in bases.split(", ")]


@pytest.mark.parametrize("name", t3nsor_peft.METHODS)
def test_the_table_of_bases_is_right(name):
    pytest.importorskip("peft", "0.21", reason="peft 0.20 calls a method that T5 no longer has")
    rows = table_of_bases()
    assert {base for base, *_ in rows} == set(ARCHITECTURES)
    for base, targets, options in rows:
        config = eval(f"config(r=4, target_modules={targets}, {options})", {"config": t3nsor_peft.METHODS[name][0]})
        model = get_peft_model(ARCHITECTURES[base].model(), config)
        assert torch.isfinite(model(**ARCHITECTURES[base].inputs()).logits).all()
        heads = [key for key, p in model.named_parameters() if "classifier" in key and p.requires_grad]
        assert bool(heads) == (base in ("bert", "vit"))


@pytest.mark.parametrize("config", [config for config, _ in t3nsor_peft.METHODS.values()])
def test_the_numbers_of_trained_parameters_are_right(config):
    (said,) = re.findall(rf"^\| `{config.__name__}` \|.*\| ([\d,]+) \|", TEXT, flags=re.MULTILINE)
    sizes = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "vocab_size": 151936}
    heads = {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}
    with torch.device("meta"):
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes, **heads))
    model = get_peft_model(model, config(r=8, target_modules="all-linear"), low_cpu_mem_usage=True)
    assert f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,}" == said
