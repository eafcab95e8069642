"""Fine-tunes a causal language model on a text file with tensor trains, saves the adapter and loads it again.

    python examples/causal_lm.py                                            # a tiny random Qwen2, offline, seconds
    python examples/causal_lm.py --model Qwen/Qwen2.5-0.5B --file mine.txt  # a real one

The last tenth of the text is held out; the loss before and after is that of the held-out part.
"""

import sys
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM
from shared import UserError, adapted, check_same, load, parser, read, run, trained_tokenizer, training_arguments
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, Trainer, set_seed

LENGTH = 64  # tokens of a row
OWN_TEXT = Path(__file__).parent.parent / "docs" / "tensor_train.md"


def tiny_base(text: str, folder: Path) -> str:
    """Write a tiny random Qwen2 and a tokenizer of this text; returns where."""
    tokenizer = trained_tokenizer([text])
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = Qwen2Config(**sizes, **tokens, num_key_value_heads=2, vocab_size=len(tokenizer), initializer_range=0.1)
    for part in (Qwen2ForCausalLM(config), tokenizer):
        part.save_pretrained(folder)
    return str(folder)


def rows_of(text: str, tokenizer) -> tuple[list[dict], list[dict]]:
    """Rows of LENGTH tokens for training, and those held out. Raises UserError if the text is too short."""
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    pieces = [{"input_ids": row, "labels": row} for row in tokens.split(LENGTH) if len(row) == LENGTH]
    if len(pieces) < 2:
        raise UserError(f"the text has {len(tokens)} tokens; at least {2 * LENGTH} are needed")
    held_out = max(1, len(pieces) // 10)
    return pieces[:-held_out], pieces[-held_out:]


def sample(model, tokenizer, start: str) -> str:
    """What the model writes after `start`."""
    batch = tokenizer(start, return_tensors="pt", add_special_tokens=False).to(model.device)
    ids = model.generate(**batch, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    return tokenizer.decode(ids[0], skip_special_tokens=True)


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__.splitlines()[0], "text to train on; default: docs/tensor_train.md", "outputs/causal_lm")
    args = args.parse_args(argv)
    arguments, text = training_arguments(args), read(args.file or OWN_TEXT)
    set_seed(0)
    name = args.model or tiny_base(text, args.output / "base")
    tokenizer = load(AutoTokenizer, name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    train, held_out = rows_of(text, tokenizer)

    model = adapted(load(AutoModelForCausalLM, name), args, "CAUSAL_LM")
    trainer = Trainer(model, arguments, train_dataset=train, eval_dataset=held_out)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    print(f"held-out loss before {before:.3f}, after {trainer.evaluate()['eval_loss']:.3f}")
    print("sample:", repr(sample(model.eval(), tokenizer, " ".join(text.split()[:4]))))

    model.save_pretrained(args.output)
    again = AutoPeftModelForCausalLM.from_pretrained(args.output)  # needs `import t3nsor_peft`, as shared.py has it
    check_same(model, again, {"input_ids": held_out[0]["input_ids"][None]})
    print(f"saved in {args.output}")


if __name__ == "__main__":
    sys.exit(run(main))
