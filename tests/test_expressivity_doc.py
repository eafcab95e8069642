"""docs/expressivity.md: its code runs, and its results show every shipped comparison with its command and figures."""

import re
from pathlib import Path

import pytest

from expressivity import confidence_interval

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "expressivity.md"
TEXT = PAGE.read_text()
WHOLE = TEXT + (ROOT / "docs" / "expressivity_results.md").read_text()
CONFIGS = sorted(path.stem for path in (ROOT / "configs" / "expressivity").glob("*.json"))


def test_the_blocks_run_and_print_the_table(capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 5
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    printed = re.findall(r"^(.*): (\d+) parameters, (\d+) directions, (\d+), ([\d.]+)$", capsys.readouterr().out, re.M)
    said = re.findall(r"^\| ([\w\- ,]+) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \|$", TEXT, flags=re.MULTILINE)
    assert len(printed) == 5
    for one, other in zip(printed, said, strict=True):
        assert one[:3] == other[:3]
        assert [float(n) for n in one[3:]] == pytest.approx([float(n) for n in other[3:]], rel=0.02, abs=0.1)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_is_shown(name):
    assert f"python run_expressivity.py configs/expressivity/{name}.json" in WHOLE
    shown = [path for path in re.findall(r"!\[.*?\]\((.*?)\)", WHOLE) if Path(path).stem.startswith(name)]
    assert shown
    for path in shown:
        assert (PAGE.parent / path).stat().st_size < 100_000


def test_the_width_of_the_intervals_is_as_said():
    import torch
    from scipy.stats import t

    values = torch.randn(100, dtype=torch.float64)
    usual = 2 * t.ppf(0.975, 99) * values.std().item() / 10
    assert confidence_interval(values).width / usual == pytest.approx(1.7, abs=0.05)
    assert "At 100 targets they are 1.7 times as wide as the t interval" in " ".join(TEXT.split())
