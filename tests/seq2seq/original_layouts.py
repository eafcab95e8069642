"""Writes rows of the hub's columns as the original downloads of GLUE, SuperGLUE and SQuAD have them."""

import json
from itertools import groupby
from pathlib import Path

MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
MNLI_WORDS = ("entailment", "neutral", "contradiction")
RTE_WORDS = ("entailment", "not_entailment")
FOLDERS = {
    **{"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "qqp": "QQP", "stsb": "STS-B", "mnli": "MNLI"},
    **{"qnli": "QNLI", "rte": "RTE", "wnli": "WNLI", "boolq": "BoolQ", "cb": "CB", "copa": "COPA"},
    **{"multirc": "MultiRC", "record": "ReCoRD", "wic": "WiC", "wsc.fixed": "WSC"},
}


def pairs(first: str, second: str, label: str, words=("0", "1")):
    """The layout of most of GLUE: an index, two texts and the label."""

    def lines(rows: list[dict], split: str) -> list[str]:
        texts = [(row[first], row[second], words[row["label"]]) for row in rows]
        return [f"index\t{first}\t{second}\t{label}", *("\t".join((str(n), *text)) for n, text in enumerate(texts))]

    return lines


def cola(rows, split):
    return [f"gj04\t{row['label']}\t{'' if row['label'] else '*'}\t{row['sentence']}" for row in rows]


def sst2(rows, split):
    return ["sentence\tlabel", *(f"{row['sentence']}\t{row['label']}" for row in rows)]


def mrpc(rows, split):
    lines = [f"{row['label']}\t70{n}\t80{n}\t{row['sentence1']}\t{row['sentence2']}" for n, row in enumerate(rows)]
    return ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", *lines]


def qqp(rows, split):
    lines = [f"9{n}\t{n}\t{n}\t{row['question1']}\t{row['question2']}\t{row['label']}" for n, row in enumerate(rows)]
    return ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", *lines]


def stsb(rows, split):
    head = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
    before = "main-captions\tMSRvid\t2012test\t0001\tnone\tnone"
    texts = [f"{row['sentence1']}\t{row['sentence2']}\t{row['label']:.3f}" for row in rows]
    return [head, *(f"{n}\t{before}\t{text}" for n, text in enumerate(texts))]


def mnli(rows, split):
    judges = 1 if split == "train" else 5
    head = [*MNLI.split(), "sentence1", "sentence2", *(f"label{n + 1}" for n in range(judges)), "gold_label"]
    lines = ["\t".join(head)]
    for n, row in enumerate(rows):
        parses = ["( It ( rains . ) )", "( It wet )", "(ROOT (S))", "(ROOT (NP))"]
        first, *others = ["neutral"] * judges  # a judge alone does not decide
        labels = [first, *others, MNLI_WORDS[row["label"]]]
        lines.append(
            "\t".join([str(n), "31193", "31193n", "fiction", *parses, row["premise"], row["hypothesis"], *labels])
        )
    return lines


TSV = {
    **{"cola": cola, "sst2": sst2, "mrpc": mrpc, "qqp": qqp, "stsb": stsb, "mnli": mnli},
    "qnli": pairs("question", "sentence", "label", RTE_WORDS),
    "rte": pairs("sentence1", "sentence2", "label", RTE_WORDS),
    "wnli": pairs("sentence1", "sentence2", "label"),
}


def boolq(rows):
    return [{k: row[k] for k in ("question", "passage", "idx")} | {"label": bool(row["label"])} for row in rows]


def words(names):
    return lambda rows: [{**row, "label": names[row["label"]]} for row in rows]


def wic(rows):
    return [{**row, "label": bool(row["label"]), "version": 1.1} for row in rows]


def wsc(rows):
    spans = ("span2_index", "span1_index", "span1_text", "span2_text")
    return [
        {"idx": n, "label": bool(row["label"]), "target": {k: row[k] for k in spans}, "text": row["text"]}
        for n, row in enumerate(rows)
    ]


def multirc(rows):
    passages = []
    for (number, text), inside in groupby(rows, lambda row: (row["idx"]["paragraph"], row["paragraph"])):
        questions = []
        for (n, question), answers in groupby(inside, lambda row: (row["idx"]["question"], row["question"])):
            listed = [{"text": row["answer"], "idx": row["idx"]["answer"], "label": row["label"]} for row in answers]
            questions.append({"question": question, "answers": listed, "idx": n})
        passages.append({"idx": number, "version": 1.1, "passage": {"text": text, "questions": questions}})
    return passages


def record(rows):
    passages = []
    for text, inside in groupby(rows, lambda row: row["passage"]):
        queries = list(inside)
        mentions = [
            {"start": start, "end": start + len(entity) - 1}
            for entity in queries[0]["entities"]
            for start in range(len(text))
            if text.startswith(entity, start)
        ]
        answers = [
            [{"start": 0, "end": 2, "text": text} for text in (row["answers"][-1], *row["answers"])] for row in queries
        ]
        qas = [
            {"query": row["query"], "answers": each, "idx": n}
            for n, (row, each) in enumerate(zip(queries, answers, strict=True))
        ]
        passage = {"text": text, "entities": sorted(mentions, key=lambda each: each["start"])}
        passages.append({"source": "CNN/Daily Mail", "passage": passage, "idx": len(passages), "qas": qas})
    return passages


JSON_LINES = {
    **{"boolq": boolq, "rte": words(RTE_WORDS), "cb": words(("entailment", "contradiction", "neutral"))},
    **{"copa": list, "multirc": multirc, "record": record, "wic": wic, "wsc.fixed": wsc},
}


def squad(rows):
    qas = [
        {
            "id": row["id"],
            "question": row["question"],
            "answers": [
                {"answer_start": start, "text": text}
                for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
            ],
        }
        for row in rows
    ]
    paragraphs = [{"context": row["context"], "qas": [each]} for row, each in zip(rows, qas, strict=True)]
    half = len(rows) // 2
    articles = [{"title": "Rome", "paragraphs": part} for part in (paragraphs[:half], paragraphs[half:])]
    return {"data": articles, "version": "1.1"}


def write_original(root: Path, task: str, train: list[dict], validation: list[dict]) -> None:
    """Write both sets of a task below `root`, in the folders that the downloads unpack to."""
    if task == "squad":
        for name, rows in (("train-v1.1", train), ("dev-v1.1", validation)):
            (root / f"{name}.json").write_text(json.dumps(squad(rows)))
        return
    family, _, config = task.rpartition("-")
    folder = root / ("SuperGLUE" if family else "glue_data") / FOLDERS[config]
    folder.mkdir(parents=True)
    if family:
        for name, rows in (("train", train), ("val", validation)):
            lines = JSON_LINES[config](rows)
            (folder / f"{name}.jsonl").write_text(
                "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            )
        return
    dev = ("dev_matched", "dev_mismatched") if task == "mnli" else ("dev",)
    for name, rows in (("train", train), *((name, validation) for name in dev)):
        (folder / f"{name}.tsv").write_text("".join(f"{line}\n" for line in TSV[task](rows, name)))
    (folder / "test.tsv").write_text("index\tsentence\n0\tNobody reads this.\n")
