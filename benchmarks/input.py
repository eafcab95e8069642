"""How long a large file of one's own takes until training can start, and how much memory, beside plain `datasets`.

    python benchmarks/input.py [--rows 300000] [--columns 8000]

Writes files of short rows to outputs/input: CSV, JSON lines and parquet, and a CSV and a parquet file with many columns
of which two are used. Each is read, split, formatted and tokenised with the tokenizer of t5-nano, in a process of its
own: without a cache, and again with it. `datasets` does the same with load_dataset, map(batched=True) and a random
split.
Memory is the peak above that of the process before it begins.
"""

import json
import multiprocessing
import os
import random
import shutil
import sys
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.arguments import Parser, whole  # noqa: E402

OUTPUTS = ROOT / "outputs" / "input"
LABELS = ("Bug", "Feature request", "Question")
LIMIT = 128  # tokens of a source


def write_files(rows: int, columns: int) -> dict[str, Path]:
    """Write the files, and return them by name."""
    import pyarrow
    from pyarrow import csv, parquet

    rng, words = (
        random.Random(0),
        [f"{a}{b}" for a in ("to", "re", "un", "de") for b in ("read", "sign", "turn", "form")],
    )
    texts = [" ".join(rng.choices(words, k=rng.randint(4, 12))) for _ in range(rows)]
    table = pyarrow.table({"id": range(rows), "text": texts, "label": rng.choices(LABELS, k=rows)})
    few = table.slice(0, max(1, rows // 100))
    wide = few
    for number in range(columns - few.num_columns):
        wide = wide.append_column(f"c{number}", pyarrow.array(range(len(few))))
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    files = {name: OUTPUTS / name for name in ("long.csv", "long.jsonl", "long.parquet")}
    files |= {name: OUTPUTS / name for name in ("narrow.csv", "wide.csv", "narrow.parquet", "wide.parquet")}
    for name, content in {"long": table, "narrow": few.select(["text", "label"]), "wide": wide}.items():
        csv.write_csv(content, OUTPUTS / f"{name}.csv")
        parquet.write_table(content, OUTPUTS / f"{name}.parquet")
    files["long.jsonl"].write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return files


def ours(path: str, tokenizer) -> tuple[float, float]:
    """Return the seconds until the texts are there, and from then until the tokens are."""
    from seq2seq.arguments import DataTrainingArguments
    from seq2seq.data.batches import load_texts, tasks_of_splits, tokenise

    start = perf_counter()
    keys = {"train_file": path, "source_template": "text: {text}", "labels": list(LABELS)}
    arguments = DataTrainingArguments(task_name="file", max_source_length=LIMIT, **keys)
    texts = load_texts(tasks_of_splits(arguments, 42), ("train", "validation", "test"), arguments, 42, False)
    read = perf_counter()
    for parts in texts.values():
        tokenise(parts[0], tokenizer, arguments)
    return read - start, perf_counter() - read


def theirs(path: str, tokenizer) -> tuple[float, float]:
    """The same with `datasets`."""
    import datasets

    start = perf_counter()
    kind = {"jsonl": "json"}.get(path.rpartition(".")[2], path.rpartition(".")[2])
    cache = str(Path(os.environ["XDG_CACHE_HOME"], "datasets"))
    rows = datasets.load_dataset(kind, data_files=path, split="train", cache_dir=cache)

    def formatted(batch: dict) -> dict:
        return {"source": [f"text: {text}" for text in batch["text"]], "target": batch["label"]}

    rows = rows.map(formatted, batched=True, remove_columns=rows.column_names)
    train, held_out = rows.train_test_split(0.3, seed=0).values()
    parts = [train, *held_out.train_test_split(0.5, seed=0).values()]
    read = perf_counter()

    def encoded(batch: dict) -> dict:
        sources = tokenizer(batch["source"], max_length=LIMIT, truncation=True)["input_ids"]
        return {"input_ids": sources, "labels": tokenizer(batch["target"])["input_ids"]}

    for part in parts:
        part.map(encoded, batched=True, remove_columns=["source", "target"])
    return read - start, perf_counter() - read


def measured(who, path: str, cache: str) -> tuple[float, float, float]:
    """Return the seconds of `who`, and the peak memory above the start in MiB."""
    os.environ["XDG_CACHE_HOME"] = cache
    import datasets
    from transformers import AutoTokenizer

    from seq2seq.data import batches  # noqa: F401  (imports are not measured)
    from seq2seq.summary import peak_memory_mib, reset_peak_memory

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "checkpoints" / "t5-nano")
    reset_peak_memory()
    before = peak_memory_mib()
    return *who(path, tokenizer), peak_memory_mib() - before


def main(rows: int, columns: int) -> None:
    print(f"{'':16}{'':10}{'read s':>8}{'tokens s':>10}{'MiB':>6}{'cached: read s':>16}{'tokens s':>10}{'MiB':>6}")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name, path in pool.apply(write_files, (rows, columns)).items():
            for who in (ours, theirs):
                cache = OUTPUTS / "cache"
                shutil.rmtree(cache, ignore_errors=True)
                cold, warm = (pool.apply(measured, (who, str(path), str(cache))) for _ in range(2))
                cells = f"{cold[0]:8.2f}{cold[1]:10.2f}{cold[2]:6.0f}{warm[0]:16.2f}{warm[1]:10.2f}{warm[2]:6.0f}"
                print(f"{name:16}{who.__name__:10}{cells}", flush=True)


if __name__ == "__main__":
    parser = Parser(description="Time the input pipeline on large files.", allow_abbrev=False)
    parser.add_argument("--rows", type=whole, default=300_000, help="rows of the long files")
    parser.add_argument("--columns", type=lambda text: whole(text, 4), default=8000, help="columns of the wide files")
    given = parser.parse_args()
    main(given.rows, given.columns)
