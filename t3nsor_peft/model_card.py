"""The model card of an adapter says that loading it needs this package: without it peft knows no method of its name."""

from pathlib import Path

PLACEHOLDER = "Use the code below to get started with the model.\n\n[More Information Needed]"
NOTE = """```python
import t3nsor_peft  # registers {method} with peft: without it loading ends in KeyError: '{method}'
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path or name of this adapter")
```"""


def say_how_to_load(folder: str | Path, method: str) -> None:
    """Write into README.md of a saved adapter how it is loaded, where peft's card leaves room, or at its end.

    folder: where the adapter is saved; a card that mentions t3nsor_peft stays as it is.
    """
    card = Path(folder, "README.md")
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    if "t3nsor_peft" in text:
        return
    note = NOTE.format(method=method)
    if PLACEHOLDER in text:
        text = text.replace(PLACEHOLDER, note)
    else:
        text = "\n\n".join(filter(None, [text.rstrip(), note])) + "\n"
    card.write_text(text, encoding="utf-8")
