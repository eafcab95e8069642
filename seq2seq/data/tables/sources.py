"""What a file of rows is: its bytes, its kind, its encoding, its delimiter."""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TextIO

from common.errors import ConfigError, shortened
from common.files import kind_of

KINDS = ("csv", "tsv", "jsonl", "json", "parquet")
DELIMITERS = {",": "comma-separated", "\t": "tab-separated", ";": "separated by semicolons", "|": "separated by |"}
HEAD = 1 << 16  # bytes that tell what a file is
BLOCK = 1 << 20
FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; export it as CSV",
    b"ARROW1": "an Arrow file; save it as parquet",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; export it as CSV",
    b"SQLite": "a database; export it as CSV",
}


@dataclass(frozen=True)
class Form:
    """How a file is written, as far as its user says; null: found from its name and content.

    format: one of KINDS.
    delimiter: the character between the cells of CSV and TSV.
    encoding: of text.
    columns: the names of the columns of CSV and TSV without a header.
    quoted: whether quotes enclose cells of CSV and TSV; false: they are text.
    """

    format: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    columns: tuple[str, ...] | None = None
    quoted: bool | None = None


class Source:
    """A file that exists and can be read.

    place: how errors name it, "train_file: tickets.csv".
    kind: one of KINDS.
    notes: what was guessed about it, for warnings.
    """

    def __init__(self, path: str | Path, key: str, form: Form, name: str | None = None):
        """Raises ConfigError for what is no file, cannot be read, or is of a kind that holds no rows of text."""
        self.path, self.form = Path(path), form
        self.notes: list[str] = []
        self.place = f"{key}: {name or shortened(str(path), 200)}"
        try:
            kind = kind_of(self.path)
            if kind != "a file":
                raise ConfigError(f"{self.place} is {kind}; it must be a file")
            with open(self.path, "rb") as file:
                self._compressed = file.read(2) == b"\x1f\x8b"
            with self.open() as file:
                self.head = file.read(HEAD)
        except FileNotFoundError:
            raise ConfigError(f"{self.place} does not exist") from None
        except (OSError, ValueError, EOFError, zlib.error) as error:  # ValueError: a NUL in the name
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{self.place} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        self.kind = self._kind()

    def open(self) -> BinaryIO:
        """Return the bytes, decompressed, from the beginning."""
        return gzip.open(self.path) if self._compressed else open(self.path, "rb")

    def text(self, encoding: str, newline: str) -> TextIO:
        """Return the decoded text, from the beginning. newline: as `open` takes it."""
        return io.TextIOWrapper(self.open(), encoding=encoding, newline=newline)

    @property
    def suffix(self) -> str:
        """The suffix of the name in lower case, without the dot and without ".gz"."""
        names = [part.lower() for part in self.path.name.split(".")[1:]]
        return next((name for name in reversed(names) if name != "gz"), "")

    @cached_property
    def encoding(self) -> str:
        """The encoding: as given, by a byte order mark, else UTF-8, and with a warning cp1252 for what is neither.

        Raises ConfigError for an unknown encoding, or text that none of them can decode.
        """
        given = self.form.encoding
        if given is not None:
            try:
                known = codecs.lookup(given)
            except (LookupError, ValueError):
                known = None
            if known is None or not known._is_text_encoding or known.name in ("idna", "punycode"):
                raise ConfigError(f"encoding is {given!r}, which is unknown; such as utf-8, cp1252 or latin-1")
            encoding = "utf-8-sig" if known.name == "utf-8" else given
            self._decode(encoding, f"; encoding is {given!r}")
            return encoding
        if self.head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self._decode("utf-16", "")
            return "utf-16"
        try:
            self._decode("utf-8-sig", "")
            return "utf-8-sig"
        except ConfigError as error:
            if self._is_mostly_utf8():
                raise ConfigError(f"{error}, though most of it is; mend that line, or set encoding") from None
            self._decode("cp1252", f" ({error}), nor cp1252; set encoding")
            self.notes.append(f"{error}; it is read as cp1252, set encoding if that is wrong")
            return "cp1252"

    def _decode(self, encoding: str, more: str) -> None:
        """Raise ConfigError with the line of the first byte that cannot be decoded."""
        decoder, before, line = codecs.getincrementaldecoder(encoding)(), 0, 1
        try:
            for block in self._blocks():
                decoder.decode(block, final=not block)
                before, line = before + len(block), line + block.count(b"\n")
        except UnicodeDecodeError as error:
            # The decoder keeps the last bytes of a block that may begin a character of the next one.
            start = before + error.start - (len(error.object) - len(block))
            line += block.count(b"\n", 0, max(start - before, 0))
            name = "UTF-8" if encoding == "utf-8-sig" else encoding
            raise ConfigError(f"{self.place} is not {name}: byte {start} (line {line}){more}") from None

    def _is_mostly_utf8(self) -> bool:
        """True if more characters beyond ASCII can be decoded as UTF-8 than cannot."""
        decoder, wrong, beyond = codecs.getincrementaldecoder("utf-8")("replace"), 0, 0
        for block in self._blocks():
            text = decoder.decode(block, final=not block)
            wrong += text.count("\N{REPLACEMENT CHARACTER}")
            beyond += len(text) - len(text.encode("ascii", "ignore"))
        return beyond > 2 * wrong

    def _blocks(self) -> Iterator[bytes]:
        """Yield the bytes in blocks, and an empty one in the end. Raises ConfigError if they cannot be read."""
        try:
            with self.open() as file:
                while block := file.read(BLOCK):
                    yield block
                yield b""
        except (OSError, EOFError, zlib.error) as error:  # of a damaged archive, too
            what = getattr(error, "strerror", None) or error
            raise ConfigError(f"{self.place} cannot be read: {what}") from None

    def _kind(self) -> str:
        """Return the kind that the user, the content or the name says, in this order."""
        foreign = next((what for magic, what in FOREIGN.items() if self.head.startswith(magic)), None)
        if foreign is not None:
            raise ConfigError(f"{self.place} is {foreign}")
        if self.form.format is not None:
            return self.form.format
        if self.head.startswith(b"PAR1"):
            return "parquet"
        if self.suffix in ("parquet", "json", "jsonl", "ndjson"):
            return "jsonl" if self.suffix == "ndjson" else self.suffix
        known = self.form.encoding is not None or self.suffix in ("csv", "tsv", "tab", "txt")
        if b"\0" in self.head and not known:
            raise ConfigError(f"{self.place} is not text, nor parquet; its format must be one of {', '.join(KINDS)}")
        kind = _json_kind(self.head)
        if kind is not None:
            self.notes.append(f"{self.place} is read as JSON, as it begins like it; set format if it is not")
            return kind
        return "tsv" if self.suffix in ("tsv", "tab") else "csv"

    def delimiter(self) -> str:
        """Return the delimiter: as given, else the one of the kind, else the one that the first line has."""
        if self.form.delimiter is not None:
            return self.form.delimiter
        own = "\t" if self.kind == "tsv" else ","
        first = self.head.decode(self.encoding, errors="replace").lstrip("\ufeff\r\n").splitlines()[:1]
        outside = "".join("".join(first).split('"')[::2])  # what is not in quotes
        counts = {delimiter: outside.count(delimiter) for delimiter in DELIMITERS}
        if counts[own] and not (counts["\t"] or counts[";"] > counts[own]):
            return own
        found = "\t" if counts["\t"] else max(counts, key=counts.__getitem__)
        if not counts[found] or found == own:
            return own
        self.notes.append(f"{self.place} is read as {DELIMITERS[found]}, as its first line is; set delimiter if not")
        return found


def _json_kind(head: bytes) -> str | None:
    """Return "jsonl" if a file begins with a line that holds an object, "json" if with an array of objects, or null."""
    begin = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if begin[:1] == b"[" and begin[1:].lstrip()[:1] == b"{":
        return "json"
    line = begin.split(b"\n")[0]
    if not line.startswith(b"{"):
        return None
    try:
        return "jsonl" if isinstance(json.loads(line), dict) else None
    except (ValueError, RecursionError):
        return "jsonl" if len(line) >= HEAD // 2 else None  # a long line that was cut
