"""Which files our T5 loads, equal to transformers bit for bit, and which it refuses in one line."""

import json

import pytest
import torch
import transformers

from common.errors import ConfigError
from seq2seq.arguments import ModelArguments
from seq2seq.models import configuration_of
from tests.conftest import TINY
from tests.methods import config_for, logits, relative
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

SIZES = {**TINY, "vocab_size": 120, "dropout_rate": 0.0, "decoder_start_token_id": 0}
LEFTOVER = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
LAYOUTS = {
    "v1.0": {},
    "v1.1": GATED,
    "flan": {**GATED, "n_positions": 512, "output_past": True},
    "madlad": {**GATED, "feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 8, "d_kv": 4},
}


def untied(model):
    """The model with an output layer of its own, as transformers 4 left it where tie_word_embeddings is false."""
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
    del model.all_tied_weights_keys["lm_head.weight"]
    return model


def saved(directory, model, change=None, **options):
    """Save a model of transformers, with other fields in its config.json; None removes one."""
    model.save_pretrained(directory, **options)
    content = json.loads((directory / "config.json").read_text())
    content = {name: value for name, value in {**content, **(change or {})}.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(content))
    return directory


def stock(layout="v1.0", **fields):
    torch.manual_seed(0)
    config = transformers.T5Config(**{**SIZES, **LAYOUTS[layout], **fields})
    model = transformers.T5ForConditionalGeneration(config)
    return model if config.scale_decoder_outputs else untied(model)


def older(layout):
    """How transformers 4 wrote the fields that transformers 5 writes otherwise."""
    gone = (
        "scale_decoder_outputs",
        "dtype",
        "dense_act_fn",
        "is_gated_act",
        "transformers_version",
        "classifier_dropout",
    )
    return {**dict.fromkeys(gone), "tie_word_embeddings": LAYOUTS[layout].get("tie_word_embeddings", True)}


def same(ours, theirs, batch):
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert torch.equal(logits(ours.eval(), batch), logits(theirs.eval(), batch))
    texts = [model.generate(batch["input_ids"], max_new_tokens=5, num_beams=2) for model in (ours, theirs)]
    assert torch.equal(*texts)


@pytest.mark.parametrize("written", ["by transformers 5", "by transformers 4", "in shards"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts(tmp_path, batch, layout, written):
    shards = {"max_shard_size": "20KB"} if written == "in shards" else {}
    saved(tmp_path, stock(layout), older(layout) if "4" in written else None, **shards)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 or not shards
    ours = T5ForConditionalGeneration.from_pretrained(tmp_path)
    same(ours, transformers.T5ForConditionalGeneration.from_pretrained(tmp_path), batch)
    assert torch.equal(ours.lm_head.weight, ours.shared.weight) == (layout == "v1.0")
    ours.save_pretrained(tmp_path / "again")
    same(T5ForConditionalGeneration.from_pretrained(tmp_path / "again"), ours, batch)


@pytest.mark.parametrize("layout", ["v1.0", "v1.1"])
def test_an_output_layer_of_its_own_stays_one(tmp_path, batch, layout):
    saved(tmp_path / "base", stock(layout))
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    expected = logits(model, batch)
    model.tie_weights()
    assert torch.equal(logits(model, batch), expected)
    model.resize_token_embeddings(120)
    assert torch.equal(logits(model, batch), expected)
    model.resize_token_embeddings(125, mean_resizing=False)
    assert torch.equal(logits(model, batch)[..., :120], expected)
    adapted = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", adapter_config=config_for("use_LoRA"))
    adapted.merge_and_export(tmp_path / "merged")
    assert (
        relative(logits(transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "merged"), batch), expected)
        < 1e-6
    )


@pytest.mark.parametrize("copies", [(), ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", LEFTOVER)])
def test_harmless_leftovers_of_published_files(tmp_path, batch, copies):
    model = stock()
    state = model.state_dict()
    extra = {name: torch.zeros(8, 4) if name == LEFTOVER else state["shared.weight"].clone() for name in copies}
    model.save_pretrained(tmp_path, state_dict={**state, **extra})
    same(T5ForConditionalGeneration.from_pretrained(tmp_path), model, batch)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("written", ["by transformers 5", "by transformers 4"])
def test_mt5_is_a_t5_without_scaling(tmp_path, batch, tied, written):
    torch.manual_seed(0)
    model = transformers.MT5ForConditionalGeneration(transformers.MT5Config(**SIZES, tie_word_embeddings=tied))
    saved(tmp_path, model if tied else untied(model), {"tie_word_embeddings": tied} if "4" in written else None)
    theirs = transformers.MT5ForConditionalGeneration.from_pretrained(tmp_path)
    ours = T5ForConditionalGeneration.from_pretrained(tmp_path)
    same(ours, theirs, batch)
    same(
        T5ForConditionalGeneration.from_pretrained(None, config=theirs.config, state_dict=model.state_dict()),
        theirs,
        batch,
    )
    ours.save_pretrained(tmp_path / "again")
    for cls in (T5ForConditionalGeneration, transformers.T5ForConditionalGeneration):
        same(cls.from_pretrained(tmp_path / "again"), theirs, batch)


def others():
    bart = transformers.BartConfig(
        vocab_size=120, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16
    )
    return {
        "umt5": lambda: transformers.UMT5ForConditionalGeneration(transformers.UMT5Config(**SIZES)),
        "longt5": lambda: transformers.LongT5ForConditionalGeneration(transformers.LongT5Config(**SIZES)),
        "bart": lambda: transformers.BartForConditionalGeneration(bart),
    }


@pytest.mark.parametrize("name", others())
def test_another_architecture_is_refused(tmp_path, capfd, name):
    model = others()[name]()
    saved(tmp_path, model)
    capfd.readouterr()
    for load in (
        lambda: T5ForConditionalGeneration.from_pretrained(tmp_path),
        lambda: T5ForConditionalGeneration.from_pretrained(tmp_path, config=model.config),
        lambda: T5ForConditionalGeneration(model.config),
        lambda: configuration_of(ModelArguments(model_name_or_path=str(tmp_path))),
    ):
        with pytest.raises(
            ConfigError, match=f"'{name}' by the model_type of its config.json; allowed: t5, mt5"
        ) as error:
            load()
        assert "\n" not in str(error.value)
    assert not capfd.readouterr().err


def parts():
    config = transformers.T5Config(**SIZES)
    mt5 = transformers.UMT5ForConditionalGeneration(transformers.UMT5Config(**SIZES, feed_forward_proj="relu"))
    return {
        "is_encoder_decoder of the T5 is false": lambda: transformers.T5EncoderModel(config),
        "left over, such as classification_head": lambda: transformers.T5ForSequenceClassification(config),
        "left over, such as qa_outputs": lambda: transformers.T5ForQuestionAnswering(config),
        "left over, such as decoder.block.1.layer.0.SelfAttention.relative_attention_bias": lambda: mt5,
        "another shape than its config.json says": lambda: stock(d_ff=40),
    }


@pytest.mark.parametrize("words", parts())
def test_what_does_not_fit_is_named_in_one_line(tmp_path, capfd, words):
    """Whatever model_type says: it is changed to that of a T5."""
    saved(tmp_path, parts()[words](), {"model_type": "t5", "d_ff": 48})
    capfd.readouterr()
    with pytest.raises(ConfigError, match=words) as error:
        T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)
    assert "LOAD REPORT" not in capfd.readouterr().err
    state = transformers.T5ForConditionalGeneration(transformers.T5Config(**SIZES)).state_dict()
    del state["encoder.final_layer_norm.weight"]
    with pytest.raises(ConfigError, match="1 of the model's tensors are missing from its file, such as encoder.final"):
        T5ForConditionalGeneration.from_pretrained(None, config=transformers.T5Config(**SIZES), state_dict=state)


def test_random_tensors_that_were_asked_for_are_said(tmp_path, capfd):
    saved(tmp_path, stock(d_ff=40), {"d_ff": 48})
    model = T5ForConditionalGeneration.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert model.encoder.block[0].layer[1].DenseReluDense.wi.weight.shape == (48, 32)
    assert "ignore_mismatched_sizes left 8 tensors random, such as decoder" in capfd.readouterr().err


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"model_type": 5}', '{"model_type": "t5", "d_model": "x"}', '{"architectures": ["BartModel"]}'],
)
def test_damaged_configurations(tmp_path, content):
    saved(tmp_path, stock())
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="^model_name_or_path") as error:
        configuration_of(ModelArguments(model_name_or_path=str(tmp_path)))
    assert "\n" not in str(error.value)


def test_files_of_the_first_versions(tmp_path, batch):
    model = stock()
    saved(tmp_path, model, {"model_type": None, "architectures": ["T5WithLMHeadModel"]})
    same(T5ForConditionalGeneration.from_pretrained(tmp_path), model, batch)
    assert T5Config.from_pretrained(tmp_path).model_type == "t5"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_backbone_with_values_that_are_not_finite(value, tmp_path):
    model = stock()
    with torch.no_grad():
        model.encoder.final_layer_norm.weight[3] = value
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"not finite, such as in encoder.final_layer_norm.weight"):
        T5ForConditionalGeneration.from_pretrained(tmp_path)


def test_a_directory_without_a_configuration_is_no_model(tmp_path):
    """transformers would take the sizes of t5-small."""
    (tmp_path / "config.json").mkdir()
    for load in (T5Config.from_pretrained, T5ForConditionalGeneration.from_pretrained):
        with pytest.raises(ConfigError, match=r"has no config.json"):
            load(tmp_path)
