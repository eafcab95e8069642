"""Published sets in each layout in which people have them: the same sources and targets from all of them."""

import json
import shutil

import pytest
from datasets import Dataset, DatasetDict

from common.errors import warn_once
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import SPLITS, get_task
from tests.seq2seq.original_layouts import write_original
from tests.seq2seq.published_rows import EVALUATED, GOLDEN, WRITERS, folder_of, numbered
from tests.seq2seq.test_published import check_error


@pytest.fixture(autouse=True)
def every_warning():
    warn_once.cache_clear()


ODD = ' "Oh, (he) said.'  # a lone quote is text


def rows_of(task: str, count: int, start: int) -> list[dict]:
    """Rows with every label, several to a paragraph, and texts that a careless reader would change."""
    rows = numbered(task, count, start)
    for n, row in enumerate(rows):
        if task == "stsb":
            row["label"] = (0.0, 2.6, 3.7, 5.0)[n % 4]
        elif "label" in row:
            row["label"] = n % len(get_task(task).labels)
        if get_task(task).fields:
            row[get_task(task).fields[0]] += ODD
        if task == "superglue-multirc":
            row |= {"idx": {"paragraph": (start + n) // 6, "question": (start + n) // 3, "answer": n}}
            row |= {"paragraph": f"Text {(start + n) // 6}.", "question": f"Question {(start + n) // 3}?"}
    return rows


def texts(task: str, data_dir, **settings) -> dict[str, dict]:
    made = get_task(task, DataTrainingArguments(task_name=task, data_dir=str(data_dir), **settings))
    return {split: made.examples(split).to_dict() for split in SPLITS}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Task -> (training rows, validation rows, texts from the hub's layout), made once a task."""
    made: dict[str, tuple] = {}

    def of(task: str):
        if task not in made:
            root = tmp_path_factory.mktemp(task)
            train, validation = rows_of(task, 12, 0), rows_of(task, 8, 60)
            (root / folder_of(task)).mkdir(parents=True)
            for split, rows in splits_of(task, train, validation).items():
                WRITERS["parquet"](rows, root / folder_of(task) / f"{split}-00000-of-00001.parquet")
            made[task] = train, validation, texts(task, root)
        return made[task]

    return of


def splits_of(task, train, validation):
    return {"train": train, **dict.fromkeys(EVALUATED.get(task, ["validation"]), validation)}


def converted(root, task, train, validation):
    """The hub's branch refs/convert/parquet."""
    for split, rows in splits_of(task, train, validation).items():
        folder = root / folder_of(task).split("/")[-1] / split
        folder.mkdir(parents=True)
        for part, some in enumerate((rows[:5], rows[5:])):
            WRITERS["parquet"](some, folder / f"{part:04}.parquet")


def saved(root, task, train, validation):
    splits = splits_of(task, train, validation)
    DatasetDict({split: Dataset.from_list(rows) for split, rows in splits.items()}).save_to_disk(root)


@pytest.mark.parametrize("task", sorted(GOLDEN))
def test_the_original_layout_gives_the_same_texts_as_the_hubs(tmp_path, capsys, published, task):
    train, validation, wanted = published(task)
    write_original(tmp_path, task, train, validation)
    assert len(wanted["train"]["source"]) >= 11
    assert texts(task, tmp_path) == wanted
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert all("held out for validation" in line for line in warned)


@pytest.mark.parametrize("layout", [converted, saved])
@pytest.mark.parametrize("task", sorted(GOLDEN))
def test_the_hubs_other_layouts_give_the_same_rows(tmp_path, published, task, layout):
    train, validation, _ = published(task)
    layout(tmp_path, task, train, validation)
    for split, rows in splits_of(task, train, validation).items():
        read = published_rows(task, tmp_path, split)
        assert len(read) == len(rows)
        assert [read[n][name] for n in range(len(read)) for name in read.column_names if name != "idx"] == [
            kept(row[name]) for row in rows for name in read.column_names if name != "idx"
        ]


def kept(cell):
    """What is kept of SQuAD's answers."""
    return cell["text"] if isinstance(cell, dict) else cell


def put(folder, name: str, text: str):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode())


def published_rows(task, data_dir, split="train"):
    return get_task(task, DataTrainingArguments(task_name=task, data_dir=str(data_dir))).published(split)


def sources(task: str, data_dir, split: str = "train") -> list[tuple[str, str]]:
    return [get_task(task).format(row) for row in published_rows(task, data_dir, split)]


SST2 = "sentence\tlabel\r\nit 's \"fine\t1\r\n\r\n'quoted' \t0\r\n"
SST2_TEXTS = [("sentence: it 's \"fine", "1"), ("sentence: 'quoted' ", "0")]


@pytest.mark.parametrize("folder", ["glue_data/SST-2", "GLUE/sst_2", "SST2", "sst-2", "."])
def test_where_an_original_may_lie(tmp_path, folder):
    put(tmp_path / folder, "TRAIN.TSV", SST2)
    put(tmp_path / folder, "._train.tsv", "what macOS leaves")
    put(tmp_path / folder, ".DS_Store", "\0")
    put(tmp_path / "__MACOSX" / "SST-2", "train.tsv", "nothing")
    put(tmp_path, "SST-2.zip", "PK")
    assert sources("sst2", tmp_path) == SST2_TEXTS


def test_links_are_followed(tmp_path):
    put(tmp_path / "blobs", "8f3a", SST2)
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "train.tsv").symlink_to("../blobs/8f3a")
    (tmp_path / "SST-2" / "train.parquet").symlink_to("../blobs/nothing")
    assert sources("sst2", tmp_path) == SST2_TEXTS


def test_the_hubs_layout_goes_first(tmp_path):
    put(tmp_path / "SST-2", "train.tsv", SST2)
    put(tmp_path / "sst2", "notes.txt", "no data")
    assert sources("sst2", tmp_path) == SST2_TEXTS
    put(tmp_path / "sst2", "train.jsonl", '{"sentence": "hub", "label": 1}\n')
    assert sources("sst2", tmp_path) == [("sentence: hub", "1")]
    put(tmp_path / "sst2", "train.tsv", SST2)
    assert sources("sst2", tmp_path) == [("sentence: hub", "1")]


def test_each_benchmark_has_an_rte(tmp_path):
    put(tmp_path / "glue_data" / "RTE", "train.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n")
    line = {"premise": "C.", "hypothesis": "D.", "label": "entailment", "idx": 0}
    put(tmp_path / "SuperGLUE" / "RTE", "train.jsonl", json.dumps(line))
    assert sources("rte", tmp_path) == [("sentence1: A. sentence2: B.", "1")]
    assert sources("superglue-rte", tmp_path) == [("premise: C. hypothesis: D.", "0")]
    assert sources("rte", tmp_path / "SuperGLUE" / "RTE") == [("sentence1: C. sentence2: D.", "0")]
    assert sources("superglue-rte", tmp_path / "glue_data") == [("premise: A. hypothesis: B.", "1")]


def test_several_tasks_share_a_directory(tmp_path, published):
    for task in ("mrpc", "superglue-rte"):
        write_original(tmp_path, task, *published(task)[:2])
        arguments = DataTrainingArguments(task_name=["mrpc", "superglue-rte"], data_dir=str(tmp_path))
        assert get_task(task, arguments).examples("test").to_dict() == published(task)[2]["test"]
    check_error(
        lambda: sources("wnli", tmp_path / "glue_data" / "MRPC"),
        ["MRPC', without a directory wnli, and is another task's; it holds dev.tsv, test.tsv, train.tsv"],
    )
    both = DataTrainingArguments(task_name=["mrpc", "cola"], data_dir=str(tmp_path))
    check_error(lambda: get_task("cola", both).examples("test"), ["without a directory cola", "it holds SuperGLUE/"])


MSR = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t10\t20\tA.\tB.\n0\t11\t21\tC.\tD.\n1\t12\t22\tE.\tF.\n"


def test_mrpc_as_microsoft_has_it(tmp_path, capsys):
    put(tmp_path / "MRPC", "msr_paraphrase_train.txt", MSR)
    check_error(lambda: sources("mrpc", tmp_path), ["msr_paraphrase_train.txt without dev_ids.tsv"])
    put(tmp_path / "MRPC", "msr_paraphrase_test.txt", MSR.replace("A.", "Z."))
    assert [target for _, target in sources("mrpc", tmp_path)] == ["1", "0", "1"]
    assert len(published_rows("mrpc", tmp_path, "validation")) == 3
    assert "holds no dev_ids.tsv, so mrpc is validated on msr_paraphrase_test.txt" in capsys.readouterr().err
    put(tmp_path / "MRPC", "dev_ids.tsv", "11\t21\n12\t99\n")
    assert [source for source, _ in sources("mrpc", tmp_path)] == [
        "sentence1: A. sentence2: B.",
        "sentence1: E. sentence2: F.",
    ]
    assert published_rows("mrpc", tmp_path, "validation").to_list() == [
        {"sentence1": "C.", "sentence2": "D.", "label": 0}
    ]


def test_broken_lines_of_qqp_are_left_out(tmp_path, capsys):
    """The real file has a few questions with a line break, and of these neither half is a row."""
    head = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    broken = '3\t5\t6\tWhy?\t"\n\tWas he real?\t0\n'
    put(tmp_path, "train.tsv", f"{head}1\t3\t4\tWho?\tWhich?\t1\n{broken}4\t5\t6\tHow?\t\t0\n5\t5\t6\ta\tb\tc\t0\n")
    assert sources("qqp", tmp_path) == [
        ("question1: Who? question2: Which?", "1"),
        ("question1: How? question2: ", "0"),
    ]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "train.tsv: 3 rows do not have the 6 cells" in line
    assert line.endswith('the first begins 3\\t5\\t6\\tWhy?\\t"')


def test_labels_may_be_words_or_missing(tmp_path, capsys):
    labels = ["ENTAILMENT", "Not Entailment", "-", "", "not-entailment"]
    lines = "".join(f"{n}\tq{n}\ts\t{label}\n" for n, label in enumerate(labels))
    put(tmp_path, "train.tsv", "index\tquestion\tsentence\tlabel\n" + lines)
    assert published_rows("qnli", tmp_path)["label"][:] == [0, 1, 1]
    assert "train.tsv: 2 rows without label are skipped" in capsys.readouterr().err


def test_multinli_before_glue_took_it(tmp_path):
    for name, label in (("train", "neutral"), ("dev_matched", "entailment"), ("dev_mismatched", "contradiction")):
        line = {"sentence1": "A", "sentence2": "B", "gold_label": label, "annotator_labels": [label]}
        put(tmp_path / "multinli_1.0", f"multinli_1.0_{name}.jsonl", json.dumps(line) + "\n")
    assert [each["target"] for each in texts("mnli", tmp_path).values()] == [["1"], ["2"], ["0"]]


def test_a_saved_split_without_the_others(tmp_path):
    rows = [{"sentence": "hello", "label": 1}]
    Dataset.from_list(rows, split="train").save_to_disk(tmp_path)
    assert sources("sst2", tmp_path) == [("sentence: hello", "1")]
    check_error(
        lambda: sources("sst2", tmp_path, "validation"), ["holds no directory sst2, validation-*", "state.json"]
    )
    next(tmp_path.glob("*.arrow")).write_bytes(b"no longer arrow")
    check_error(lambda: sources("sst2", tmp_path), ["cannot be read"])


SPANS = {"span1_index": 0, "span1_text": "ANNA", "span2_index": 3, "span2_text": "she"}


def test_spans_that_are_elsewhere_are_said_once(tmp_path, capsys):
    text = "Anna slept, so did she."
    exact = {"span1_index": 0, "span1_text": "anna", "span2_index": 4, "span2_text": "She."}
    rows = [{"text": text, "target": target, "label": True, "idx": 0} for target in (exact, SPANS)]
    put(tmp_path, "train.jsonl", "\n".join(map(json.dumps, rows)))
    assert sources("superglue-wsc.fixed", tmp_path) == [
        ("text: * Anna * slept, so did # she #.", "1"),
        ("text: * Anna * slept, so # did # she.", "1"),
    ]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "2 spans differ from the words at their index, which are marked; the first is 'ANNA' in 'Anna slept" in line


def test_entities_and_answers_do_not_depend_on_their_order(tmp_path):
    passage = {"text": "Ann Lee met Bob. Ann left.", "entities": [{"start": 17, "end": 19}, {"start": 12, "end": 14}]}
    passage["entities"] += [{"start": 0, "end": 6}, {"start": 0, "end": 2}]
    answers = [{"start": 12, "end": 14, "text": "Bob"}, {"start": 0, "end": 2, "text": "Ann"}] * 2
    line = {
        "source": "x",
        "passage": passage,
        "qas": [{"query": "@placeholder", "answers": answers, "idx": 0}],
        "idx": 0,
    }
    put(tmp_path, "val.jsonl", json.dumps(line))
    hub = {"passage": passage["text"], "query": "@placeholder", "entities": ["Bob", "Ann Lee", "Ann"]}
    put(tmp_path / "hub", "validation.jsonl", json.dumps({**hub, "answers": ["Bob", "Ann"]}))
    for folder in (tmp_path, tmp_path / "hub"):
        (row,) = published_rows("superglue-record", folder, "validation")
        source, _ = get_task("superglue-record").format({**row, "answer": ""})
        assert source == "query: @placeholder entities: Ann, Ann Lee, Bob passage: Ann Lee met Bob. Ann left."
        assert row["answers"] == ["Ann", "Bob"]


@pytest.mark.parametrize(
    ("task", "name", "text", "words"),
    [
        ("sst2", "train.tsv", "", ["train.tsv holds no rows"]),
        ("sst2", "train.tsv", "sentence\tlabel", ["train.tsv holds no rows"]),
        ("sst2", "train.tsv", "sentence\tlabel\n", ["train.tsv holds no rows"]),
        ("sst2", "train.tsv", "text\tscore\nfine\t1\n", ["has no column sentence, label", "it has text, score"]),
        (
            "mrpc",
            "train.txt",
            "Quality\t#1 String\n1\ta\n",
            ["no column sentence2 or #2 String", "it has Quality, #1 String"],
        ),
        ("cola", "train.tsv", "fine\t1\n", ["all 1 rows do not have the 4 cells", "source, label, mark, sentence"]),
        ("qqp", "train.csv", "question1,question2\nq,r\n", ["has no column label or is_duplicate"]),
        ("squad", "train-v1.1.json", '{"data": [{"paragraphs": 3}]}', ["column data is", "must be like", "qas"]),
        ("squad", "train-v1.1.json", '{"data": []}', ["holds no rows"]),
        ("squad", "train-v1.1.json", '{"data": [', ["train-v1.1.json, line 1: invalid JSON"]),
        ("superglue-wsc.fixed", "train.jsonl", '{"target": {"span1_text": "a"}}', ["row 1: column target is"]),
        ("superglue-multirc", "train.jsonl", '{"passage": "a text", "question": "q"}', ["column passage is a text"]),
        (
            "superglue-record",
            "train.jsonl",
            '{"passage": {"text": "a", "entities": [{"start": 0, "end": 9}]}, "qas": []}',
            ["row 1: column qas is"],
        ),
        (
            "squad",
            "train.csv",
            "context,question,answers\nc,q,\"{'text': array(['a'], dtype=object)}\"\n",
            ["row 1: column answers is", "as Python prints it, not JSON", "parquet or JSON lines", "json.dumps"],
        ),
        (
            "superglue-record",
            "train.csv",
            "passage,query,entities,answers\np,q,\"['Ann' 'Bob']\",[]\n",
            ["row 1: column entities is", "as Python prints it"],
        ),
        (
            "superglue-wsc.fixed",
            "train.csv",
            "text,target,label\nt,\"{'span1_text': 'a'}\",1\n",
            ["row 1: column target is", "as Python prints it"],
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, task, name, text, words):
    put(tmp_path, name, text)
    check_error(lambda: sources(task, tmp_path), ["data_dir", *words])


def test_text_that_is_not_utf8_is_one_line(tmp_path):
    for content in (b"sentence\tlabel\ncaf\xe9\t1\n", "sentence\tlabel\n".encode("utf-16")):
        (tmp_path / "train.tsv").write_bytes(content)
        check_error(lambda: sources("sst2", tmp_path), ["train.tsv is not UTF-8"])


def test_what_is_there_instead_is_listed(tmp_path):
    put(tmp_path, "CoLA.zip", "PK")
    for n in range(12):
        put(tmp_path / f"folder{n:02}", "a.txt", "")
    check_error(
        lambda: sources("cola", tmp_path),
        ["holds no directory cola, train-*.parquet", "it holds CoLA.zip, folder00/, folder01/", "and 3 more; unpack"],
    )
    put(tmp_path / "CoLA", "test.tsv", "x")
    check_error(
        lambda: sources("cola", tmp_path, "validation"), ["CoLA holds no validation-", "dev, val", "it holds test.tsv"]
    )
    check_error(lambda: sources("cola", tmp_path / "CoLA.zip"), ["is a file; it must be a directory; unpack it"])
    check_error(lambda: sources("cola", tmp_path / "no"), ["cannot be read: No such file"])


def test_a_missing_part_of_the_converted_layout_is_noticed(tmp_path):
    converted(tmp_path, "rte", numbered("rte", 12), numbered("rte", 8))
    (tmp_path / "rte" / "train" / "0000.parquet").unlink()
    check_error(lambda: sources("rte", tmp_path), ["train lacks a part: it holds 0001.parquet"])
    shutil.rmtree(tmp_path / "rte" / "train")
    check_error(lambda: sources("rte", tmp_path), ["holds no train-*.parquet, train/*.parquet", "validation/"])
