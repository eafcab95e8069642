"""The code blocks of the pages on tensor trains run, and print what the pages say."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "shown"), [("t3nsor.md", "right to left (1)(2)"), ("tensor_train.md", "ranks=(1, 4, 8, 1)")]
)
def test_the_blocks_of_the_page_run_in_order(page, shown, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)
    assert len(blocks) >= 5
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    printed = capsys.readouterr().out
    assert shown in printed
    said = re.findall(r"^print\(.*\)  # (.*)$", "\n".join(blocks), flags=re.MULTILINE)
    assert said
    assert all(text in printed for text in said)
