"""The code of docs/t3nsor.md runs, and prints what the page says."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "t3nsor.md"


def test_the_blocks_of_the_page_run_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 5
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    printed = capsys.readouterr().out
    assert "right to left (1)(2)" in printed
    said = re.findall(r"^print\(.*\)  # (.*)$", "\n".join(blocks), flags=re.MULTILINE)
    assert said
    assert all(text in printed for text in said)
