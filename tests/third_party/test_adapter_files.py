"""Files of saved adapters that were damaged, changed or made by somebody else: refused in one line, nothing copied."""

import json
import math
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.checksums import sealed, sha256_of
from common.errors import ConfigError
from tests.methods import adapted, config_for, logits, moved
from third_party.models.t5 import T5ForConditionalGeneration

WEIGHTS, DESCRIPTION = "adapter_model.safetensors", "lab_adapter.json"
CORE = "encoder.block.0.layer.1.DenseReluDense.wi.branch.tt.weight.cores.0"


@pytest.fixture(scope="module")
def written(tiny_t5, tmp_path_factory):
    """A directory with an adapter of a LoRA in tensor-train form that also trains the norms. Tests read it only."""
    config = config_for("use_TTLoRA", unfreeze_layer_norms=True)
    model = moved(T5ForConditionalGeneration.from_pretrained(tiny_t5, adapter_config=config))
    directory = tmp_path_factory.mktemp("written") / "adapter"
    model.save_adapter(directory)
    return directory


@pytest.fixture
def saved(written, tmp_path):
    """A copy of `written` for a test to damage."""
    return shutil.copytree(written, tmp_path / "adapter")


def rewrite(directory, change, *, seal):
    """Write the tensors and the description that `change` edited, with new checksums or without any."""
    content, tensors = json.loads((directory / DESCRIPTION).read_text()), load_file(directory / WEIGHTS)
    del content["sha256"]
    change(content, tensors)
    save_file(tensors, directory / WEIGHTS)
    content = sealed(content, {WEIGHTS: sha256_of(directory / WEIGHTS)}) if seal else content
    (directory / DESCRIPTION).write_text(json.dumps(content))


def error_of(load, directory):
    """The message by which `load` refuses the directory, or None."""
    try:
        load(directory)
    except ConfigError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def refused(tiny_t5):
    """refused(directory, words): no way of loading accepts it, and the model that should take it keeps its bits."""
    config = config_for("use_TTLoRA", unfreeze_layer_norms=True)
    model = T5ForConditionalGeneration.from_pretrained(tiny_t5, adapter_config=config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def check(directory, words):
        for load in (model.load_adapter, T5ForConditionalGeneration.from_pretrained):
            error = error_of(load, directory)
            assert words in error
            assert str(directory) in error
            assert len(error.splitlines()) == 1
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    return check


@pytest.mark.parametrize("seal", [True, False])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "shared.weight",
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "lm_head.weight",
        "encoder.block.0.layer.1.DenseReluDense.wi.weight",
        "no.such.tensor",
    ],
)
def test_no_tensor_of_the_backbone_is_replaced(saved, refused, name, listed, seal):
    def change(content, tensors):
        shape = [48, 32] if ".wi." in name else [120, 32]
        tensors[name] = torch.randn(shape)
        if listed:
            content["tensors"][name] = shape

    rewrite(saved, change, seal=seal)
    refused(saved, name)


TENSORS = {
    "not finite": lambda t: t.fill_(math.nan),
    "not finite, such as": lambda t: t.mul_(math.inf),
    "dtype mismatch": lambda t: t.to(torch.int64),
    "is torch.float8_e4m3fn": lambda t: t.to(torch.float8_e4m3fn),
    "does not match lab_adapter.json": lambda t: t[..., :1].clone(),
    "out of range": lambda t: torch.full_like(t, 1e300, dtype=torch.float64),
}


@pytest.mark.parametrize("words", TENSORS)
def test_no_strange_values_are_loaded(saved, refused, words):
    rewrite(saved, lambda content, tensors: tensors.update({CORE: TENSORS[words](tensors[CORE])}), seal=True)
    refused(saved, words)


def test_a_float_does_not_replace_an_integer(tiny_config, tmp_path):
    model = adapted(tiny_config, config_for("intrinsic_model"))
    model.save_adapter(tmp_path)
    rewrite(
        tmp_path, lambda content, tensors: tensors.update({n: t.to(torch.int32) for n, t in tensors.items()}), seal=True
    )
    with pytest.raises(ConfigError, match="dtype mismatch"):
        model.load_adapter(tmp_path)


def test_what_was_diverged_is_not_saved(tiny_config, tmp_path):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    with torch.no_grad():
        model.get_parameter(CORE)[0] = math.nan
    with pytest.raises(ConfigError, match=f"not finite, such as in {CORE}"):
        model.save_adapter(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("file", [WEIGHTS, DESCRIPTION])
def test_flipped_and_lost_bytes(saved, file, batch, capfd):
    """Everywhere in the file: refused, or, where it hides the checksums or the spaces of JSON, the same adapter."""
    whole, generator = (saved / file).read_bytes(), random.Random(0)
    recorded = json.loads((saved / DESCRIPTION).read_text())["sha256"][WEIGHTS].encode()
    of_weights = range(start := whole.find(recorded), start + len(recorded)) if file == DESCRIPTION else range(0)
    model = T5ForConditionalGeneration.from_pretrained(saved)
    expected = logits(model, batch)
    survived = 0
    for place in [*(generator.randrange(len(whole)) for _ in range(60)), *of_weights[::16]]:
        bit = 0 if place in of_weights else generator.randrange(8)  # that of a digit leaves the JSON whole
        flipped = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
        others = () if place in of_weights else (whole[:place], whole[:place] + whole)
        changed = generator.choice((flipped, *others))
        (saved / file).write_bytes(changed)
        error = error_of(model.load_adapter, saved)
        survived += error is None
        # Of a recorded checksum and a file that disagree, nobody can say which of the two was damaged.
        assert error is None or (WEIGHTS if place in of_weights else file) in error
        assert error is None or len(error.splitlines()) == 1
        assert torch.equal(logits(model, batch), expected)
    assert survived <= (0 if file == WEIGHTS else 6)


def test_two_equal_tensors_swapped(saved, refused):
    other = CORE.replace("block.0", "block.1")
    tensors = load_file(saved / WEIGHTS)
    tensors[CORE], tensors[other] = tensors[other], tensors[CORE]
    save_file(tensors, saved / WEIGHTS, metadata={"format": "pt"})
    refused(saved, "adapter_model.safetensors was changed after it was written")


@pytest.mark.parametrize("file", [WEIGHTS, DESCRIPTION])
def test_a_missing_file(saved, refused, file):
    (saved / file).unlink()
    refused(saved, file)


def test_a_change_on_purpose(saved, refused, tmp_path, tiny_t5, batch, capfd):
    model = T5ForConditionalGeneration.from_pretrained(saved)
    content = json.loads((saved / DESCRIPTION).read_text())
    (tmp_path / "moved").symlink_to(tiny_t5)
    content["base_model"] = str(tmp_path / "moved")
    (saved / DESCRIPTION).write_text(json.dumps(content))
    refused(saved, 'remove its "sha256" entry to load it without the check')
    del content["sha256"]
    (saved / DESCRIPTION).write_text(json.dumps(content))
    capfd.readouterr()
    again = T5ForConditionalGeneration.from_pretrained(saved)
    assert torch.equal(logits(again, batch), logits(model, batch))
    assert capfd.readouterr().err.count("has no checksums") == 1


def test_a_file_of_the_first_version(saved, batch):
    expected = logits(T5ForConditionalGeneration.from_pretrained(saved), batch)
    rewrite(saved, lambda content, tensors: content.pop("base_path"), seal=False)
    assert torch.equal(logits(T5ForConditionalGeneration.from_pretrained(saved), batch), expected)


def test_half_precision_files_load_into_either(saved, tiny_t5):
    """Files of other versions may hold the trained tensors in the backbone's dtype, or in float32."""
    halved = {name: tensor.bfloat16() for name, tensor in load_file(saved / WEIGHTS).items()}
    rewrite(saved, lambda content, tensors: tensors.update(halved), seal=True)
    for dtype in (torch.float32, torch.bfloat16):
        model = T5ForConditionalGeneration.from_pretrained(saved, dtype=dtype)
        assert torch.equal(model.get_parameter(CORE).bfloat16(), halved[CORE])


DEEP = json.loads("[" * 200 + "]" * 200)
WRONG = [None, 0, -1, 1e999, math.nan, 10**30, True, "", "x", "\0", "\ud800", "x" * 5000, [], [0], {}, {"a": 1}, DEEP]
FIELDS = [
    *((name,) for name in ("adapter_config", "base_model", "base_path", "base_fingerprint", "tasks", "tensors")),
    *(("base_fingerprint", name) for name in ("dtype", "digest", "sums")),
    *(("adapter_config", name) for name in ("use_TTLoRA", "tt_rank", "tt_d", "tt_shape", "lora_targets")),
    ("adapter_config", "\n"),
    ("tensors", "\n"),
    *(("adapter_config", name) for name in ("task_adapter_layers_encoder", "cores_nonlinearity", "no_such_key")),
    ("tensors", CORE),
]


@pytest.mark.parametrize("field", FIELDS, ids=".".join)
def test_wrong_values_in_the_description(saved, batch, field):
    """No traceback and no other adapter, though there are no checksums."""
    model = T5ForConditionalGeneration.from_pretrained(saved)
    expected, whole = logits(model, batch), json.loads((saved / DESCRIPTION).read_text())
    for value in WRONG:
        content = json.loads(json.dumps(whole))
        del content["sha256"]
        inner = content[field[0]] if len(field) > 1 else content
        inner[field[-1]] = value
        (saved / DESCRIPTION).write_text(json.dumps(content))
        for load in (model.load_adapter, T5ForConditionalGeneration.from_pretrained):
            error = error_of(load, saved)
            assert error is None or (str(saved) in error and len(error.splitlines()) == 1), value
        if error is None:
            assert torch.equal(logits(T5ForConditionalGeneration.from_pretrained(saved), batch), expected), value


def test_a_scale_that_is_no_number(saved, refused):
    rewrite(saved, lambda content, tensors: content["adapter_config"].update(lora_alpha=math.inf), seal=True)
    refused(saved, "lora_alpha is inf")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"tensors": ' + "9" * 5000 + "}", "[]", "3", "", "\ufeff", "null"])
def test_no_description_at_all(saved, refused, text):
    (saved / DESCRIPTION).write_text(text)
    refused(saved, DESCRIPTION)


def test_a_base_that_leads_back(saved, tmp_path):
    """Its own directory, and an adapter whose base is the first one."""
    other = shutil.copytree(saved, tmp_path / "other")
    for base, directory in ((saved, saved), (other, saved), (saved, other)):
        rewrite(
            directory, lambda content, _, base=base: content.update(base_model=str(base), base_path=None), seal=True
        )
        with pytest.raises(ConfigError, match="an adapter, not a backbone"):
            T5ForConditionalGeneration.from_pretrained(directory)
