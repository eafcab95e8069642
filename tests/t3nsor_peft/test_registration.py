"""Registration with peft, what transformers and peft do with registered methods, and refusals."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftType, convert_to_lora, get_peft_model, set_peft_model_state_dict
from torch import nn

import t3nsor_peft
from t3nsor import ShapeWarning
from t3nsor_peft import MetaTTConfig, TTAdapterConfig, TTLoraConfig, registration, versions
from tests.t3nsor_peft.models import ARCHITECTURES, logits, perturb


@pytest.mark.parametrize("name", t3nsor_peft.METHODS)
def test_the_members_of_the_enumeration_are_like_its_own(name):
    member = PeftType[name]
    assert member is getattr(PeftType, name) is PeftType(name) is registration.peft_type(name)
    assert pickle.loads(pickle.dumps(member)) is copy.deepcopy(member) is member
    assert member == name
    assert member in list(PeftType)
    assert isinstance(member, PeftType)
    assert (member.name, member.value, repr(member)) == (name, name, f"<PeftType.{name}: '{name}'>")


def test_registering_again_changes_nothing_and_a_taken_name_is_refused():
    config, model = t3nsor_peft.METHODS["TT_LORA"]
    registration.register("TT_LORA", config, model)
    with pytest.raises(ImportError, match="peft has a method LORA already"):
        registration.register("LORA", config, model)


@pytest.mark.parametrize("installed", ["0.19.1", "0.22.0", "0.22.0.dev0"])
def test_other_versions_of_peft_are_refused(installed, monkeypatch):
    monkeypatch.setattr(versions, "version", lambda package: installed)
    with pytest.raises(ImportError, match=f"needs peft >= 0.20 and < 0.22; installed is peft {installed}"):
        versions.check_version()


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("raise PackageNotFoundError(package)", "and there is none"),
        ("return '0.14.0'", "installed is peft 0.14.0"),
    ],
)
def test_a_missing_or_old_peft_is_answered_before_anything_of_it_is_imported(release, said):
    code = "import importlib.metadata, sys\nfrom importlib.metadata import PackageNotFoundError\n"
    code += f"def version(package):\n    {release}\n"
    code += "importlib.metadata.version, sys.modules['peft'], sys.modules['packaging'] = version, None, None\n"
    done = subprocess.run([sys.executable, "-c", f"{code}import t3nsor_peft"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: t3nsor_peft needs peft >= 0.20 and < 0.22")
    assert said in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert "the extra `peft` of t3nsor" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("cls", [TTLoraConfig, MetaTTConfig, TTAdapterConfig])
def test_configurations_come_back_from_files(cls, tmp_path):
    config = cls(r=3, target_modules=["q_proj"], freeze_cores=[0], tt_shape=[[4, 8], [8, 4]])
    config.save_pretrained(tmp_path)
    again = PeftConfig.from_pretrained(tmp_path)
    assert type(again) is cls
    assert again == config


def test_a_configuration_can_be_used_for_models_of_other_sizes():
    config = TTLoraConfig(target_modules=["0"])
    for size in (16, 24):
        model = get_peft_model(nn.Sequential(nn.Linear(size, size)), config)
        assert model(torch.ones(1, size)).shape == (1, size)
    assert config.layer_shapes == {}


def test_saved_shapes_outlive_a_change_of_automatic_shapes(tmp_path, monkeypatch):
    model = get_peft_model(ARCHITECTURES["llama"].model(), TTLoraConfig(target_modules="all-linear"))
    perturb(model)
    inputs = ARCHITECTURES["llama"].inputs()
    expected = logits(model, inputs)
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("t3nsor_peft.config.linear_shape", lambda n, m, **options: ((1, n), (1, m)))
    assert torch.equal(logits(PeftModel.from_pretrained(ARCHITECTURES["llama"].model(), tmp_path), inputs), expected)


@pytest.mark.parametrize("cls", [TTLoraConfig, MetaTTConfig, TTAdapterConfig])
def test_transformers_adds_saves_and_loads_adapters(cls, tmp_path):
    architecture = ARCHITECTURES["llama"]
    model, inputs = architecture.model(), architecture.inputs()
    base = logits(model, inputs)
    model.add_adapter(cls(r=4, target_modules=["q_proj", "up_proj", "down_proj"]))
    perturb(model)
    expected = logits(model, inputs)
    assert not torch.allclose(expected, base, atol=1e-3)
    model.save_pretrained(tmp_path)
    again = architecture.model()
    again.load_adapter(str(tmp_path))
    assert torch.equal(logits(again, inputs), expected)
    model.disable_adapters()
    assert torch.equal(logits(model, inputs), base)
    assert torch.equal(logits(PeftModel.from_pretrained(architecture.model(), tmp_path), inputs), expected)


@pytest.mark.parametrize("cls", [TTLoraConfig, MetaTTConfig])
def test_conversion_to_lora(cls):
    architecture = ARCHITECTURES["llama"]
    model = get_peft_model(architecture.model(), cls(r=4, target_modules=["q_proj"]))
    perturb(model)
    expected = logits(model, architecture.inputs())
    config, tensors = convert_to_lora(model, rank=32)
    assert isinstance(config, LoraConfig)
    lora = get_peft_model(architecture.model(), config).eval()
    set_peft_model_state_dict(lora, tensors)
    assert torch.allclose(logits(lora, architecture.inputs()), expected, atol=1e-5)


@pytest.mark.parametrize("cls", [TTLoraConfig, MetaTTConfig, TTAdapterConfig])
def test_gradient_checkpointing_gives_the_same_gradients(cls):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = ARCHITECTURES["llama"].model()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model = get_peft_model(model, cls(r=4, target_modules="all-linear", init_weights=False)).train()
        model(**ARCHITECTURES["llama"].inputs()).logits.square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("cls", [TTLoraConfig, MetaTTConfig, TTAdapterConfig])
def test_half_precision_trains_float32_cores(cls):
    model = get_peft_model(ARCHITECTURES["llama"].model().bfloat16(), cls(r=4, target_modules="all-linear"))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    perturb(model)
    y = model(**ARCHITECTURES["llama"].inputs()).logits
    assert y.dtype == torch.bfloat16
    y.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(**ARCHITECTURES["llama"].inputs()).logits.isfinite().all()


def test_frozen_cores_stay_frozen():
    model = get_peft_model(ARCHITECTURES["llama"].model(), TTLoraConfig(target_modules=["q_proj"], freeze_cores=[0]))

    def trained() -> set[str]:
        return {name.split(".")[-1] for name, p in model.named_parameters() if p.requires_grad}

    assert trained() == {"core_1"}
    model.add_adapter("other", TTLoraConfig(target_modules=["q_proj"]))
    model.set_adapter("other")
    assert trained() == {"core_0", "core_1"}
    model.set_adapter("default")
    assert trained() == {"core_1"}
    with model.disable_adapter():
        assert trained() == set()
    assert trained() == {"core_1"}


class WithAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(16, 2), nn.Linear(16, 16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_modules": ["nothing"]}, "not found in the base model"),
        (
            {"target_modules": ["q_proj", "k_proj", "up_proj"], "tt_shape": [[4, 8], [6, 8]]},
            r"q_proj \(32 -> 32\).*k_proj",
        ),
        ({"target_modules": ["q_proj"], "rank_pattern": {"k_proj": 2}}, "rank_pattern: 'k_proj' matches none"),
        ({"target_modules": ["q_proj"], "alpha_pattern": {"v": 2}}, "alpha_pattern: 'v' matches none"),
        ({"target_modules": ["q_proj"], "freeze_cores": [0, 1]}, "freeze_cores names all 2 cores"),
        ({"target_modules": ["q_proj"], "freeze_cores": "middle"}, "freeze_cores is 'middle'"),
    ],
)
def test_what_does_not_fit_a_model_is_refused(fields, message):
    model = ARCHITECTURES["llama"].model()
    with pytest.raises(ValueError, match=message):
        get_peft_model(model, TTLoraConfig(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ring": True, "init_weights": "svd"}, "only a train can start from an SVD"),
        ({"init_weights": "pissa"}, "allowed: True, False, 'svd'"),
        ({"r": 0}, "r is 0"),
        ({"d": "most"}, "d is 'most'"),
        ({"d": 3, "auto_shape_mode": "skewed"}, "a skewed shape has 2 cores"),
        ({"auto_shape_mode": "round"}, "allowed: square, skewed"),
        ({"tt_shape": [[2, 2], [2]]}, "both lists need the same length"),
        ({"lora_dropout": 1.0}, "from 0 to below 1"),
        ({"bias": "some"}, "allowed: none, all, tt_lora_only"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TTLoraConfig(target_modules=["q_proj"], **fields)


def test_an_adapter_of_another_base_is_refused_with_its_sizes(tmp_path):
    get_peft_model(nn.Sequential(nn.Linear(16, 8)), TTLoraConfig(target_modules=["0"])).save_pretrained(tmp_path)
    message = r"adapter of another base model.*0 \(24 -> 8\): shape .* multiply to 16, the input dimension is 24"
    with pytest.raises(ValueError, match=message):
        PeftModel.from_pretrained(nn.Sequential(nn.Linear(24, 8)), tmp_path)


def test_layers_that_are_not_called_are_refused():
    with pytest.raises(ValueError, match="'attention.out_proj' cannot be adapted"):
        get_peft_model(WithAttention(), TTLoraConfig(target_modules=["out_proj", "head"]))
    with pytest.raises(TypeError, match="must be a linear layer"):
        get_peft_model(WithAttention(), TTLoraConfig(target_modules=["attention"]))


def test_ranks_are_cut_to_what_a_small_layer_can_use_and_excess_is_said():
    with pytest.warns(ShapeWarning, match=r"0 \(13 -> 11\) gets 144 parameters, a dense one would have 143"):
        model = get_peft_model(nn.Sequential(nn.Linear(13, 11)), TTLoraConfig(target_modules=["0"]))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 144
