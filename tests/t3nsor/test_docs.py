"""The code of docs/t3nsor.md runs."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "t3nsor.md"


def test_the_blocks_of_the_page_run_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 5
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert "right to left (1)(2)" in capsys.readouterr().out
