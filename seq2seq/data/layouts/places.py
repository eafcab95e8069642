"""Where a local copy of a published data set keeps a split: its folder, and the files in there."""

import re
from collections.abc import Sequence
from pathlib import Path

from common.errors import ConfigError
from common.files import kind_of
from common.json_text import object_in
from seq2seq.data.layouts.originals import FAMILIES, ORIGINALS, Original, tidy

SUFFIXES = ("parquet", "jsonl", "json", "csv", "tsv", "txt")
# The hub's name of a split -> its names in other copies; in MNLI's, "_matched" or "_mismatched" follows.
SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "dev", "val", "valid")}
LISTED = 10  # entries of a folder that an error shows
SAVED = "state.json"  # what save_to_disk puts beside the Arrow files of a split


def files_of(data_dir: Path, family: str, config: str, original: Original, split: str, alone: bool) -> list[Path]:
    """Return the file of a split, its parts in order, or a folder that save_to_disk wrote.

    Looked through are the task's folder in the family's folder in data_dir, the task's folder in data_dir, and data_dir
    itself.

    family, config: the data set's name on the hub, and its configuration.
    alone: True if the run has only one task; files in data_dir itself might belong to another one otherwise.
    Raises ConfigError, with what is there instead, if there is none or a part is missing.
    """
    _check_directory(data_dir)
    folders = tuple(dict.fromkeys((config, *original.folders)))
    families = [inner for outer in _named(data_dir, FAMILIES[family]) for inner in _named(outer, folders)]
    places = [*families, *_named(data_dir, folders)]
    if not places:
        _check_owner(data_dir, folders, alone)
        places = [data_dir]
    names = _names(split, original)
    for place in places:
        for name in names:
            if found := _shards(place, name) or _folder(place, name) or _saved(place, name) or _single(place, name):
                return found
    raise ConfigError(_nothing(data_dir, places[0], folders, split))


def _check_directory(data_dir: Path) -> None:
    try:
        kind = kind_of(data_dir)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"data_dir is {str(data_dir)!r}, which cannot be read: {what}") from None
    if kind != "a directory":
        unpack = "; unpack it" if data_dir.suffix.lower() == ".zip" else ""
        raise ConfigError(f"data_dir is {str(data_dir)!r}, which is {kind}; it must be a directory{unpack}")


def _check_owner(data_dir: Path, folders: Sequence[str], alone: bool) -> None:
    """Raise ConfigError if the files in data_dir itself belong to another task, or might."""
    name, own = tidy(data_dir.name), set(map(tidy, folders))
    others = {tidy(folder) for original in ORIGINALS.values() for folder in original.folders} - own
    if name in others or not (alone or name in own):
        why = "and is another task's" if name in others else "with several tasks each needs a directory"
        raise ConfigError(
            f"data_dir is {str(data_dir)!r}, without a directory {_spelt(folders)}, {why}; {_contents(data_dir)}"
        )


def _entries(directory: Path) -> list[Path]:
    """Return what is in a directory, without what macOS leaves there. Raises ConfigError if it cannot be read."""
    try:
        return sorted(path for path in directory.iterdir() if path.name[0] != "." and path.name != "__MACOSX")
    except OSError as error:
        raise ConfigError(f"data_dir: {directory} cannot be read: {error.strerror}") from None


def _named(directory: Path, names: Sequence[str]) -> list[Path]:
    """Return the directories with one of these names, the first name's before the second's, that spelling first."""
    order = list(map(tidy, names))
    found = [path for path in _entries(directory) if tidy(path.name) in order and path.is_dir()]
    return sorted(found, key=lambda path: (at := order.index(tidy(path.name)), path.name != names[at]))


def _names(split: str, original: Original) -> list[str]:
    """Return the tidy names of a split's files and folders, the hub's first."""
    whole, _, part = split.partition("_")
    return [*(name + part for name in SPLIT_NAMES[whole]), *map(tidy, original.files.get(split, ()))]


def _shards(directory: Path, name: str) -> list[Path]:
    """Return train-00000-of-00002.parquet and so on."""
    pattern = re.compile(r"(.+?)-(?:\d+-of-0*(\d+)|.+)\.parquet", re.IGNORECASE)
    parts = [(match, path) for path in _entries(directory) if (match := pattern.fullmatch(path.name))]
    files = [path for match, path in parts if tidy(match[1]) == name]
    totals = {int(match[2]) for match, path in parts if path in files and match[2]}
    if totals and totals != {len(files)}:
        raise ConfigError(f"data_dir: {directory} holds {len(files)} of the {max(totals)} files {_pattern(files)}")
    return files


def _folder(directory: Path, name: str) -> list[Path]:
    """Return train/0000.parquet and so on, the layout into which the hub converts data sets."""
    for folder in _named(directory, [name]):
        if found := _shards(folder, name):
            return found
        files = [path for path in _entries(folder) if path.suffix.lower() == ".parquet"]
        numbers = [int(path.stem) for path in files if path.stem.isdecimal()]
        if numbers and numbers != list(range(len(files))):
            raise ConfigError(f"data_dir: {folder} lacks a part: it holds {', '.join(path.name for path in files)}")
        if files:
            return files
    return []


def _saved(directory: Path, name: str) -> list[Path]:
    """Return a folder that save_to_disk wrote: one in the directory, or the directory if it holds this split alone."""
    for folder in _named(directory, [name]):
        if (folder / SAVED).is_file():
            return [folder]
    state = object_in(directory / SAVED) if (directory / SAVED).is_file() else None
    return [directory] if state and tidy(str(state.get("_split"))) == name else []


def _single(directory: Path, name: str) -> list[Path]:
    suffixes = [f".{suffix}" for suffix in SUFFIXES]
    found = [path for path in _entries(directory) if tidy(path.stem) == name and path.suffix.lower() in suffixes]
    return sorted(filter(Path.is_file, found), key=lambda path: suffixes.index(path.suffix.lower()))[:1]


def _nothing(data_dir: Path, directory: Path, folders: Sequence[str], split: str) -> str:
    """Return the message for a split that is not there."""
    whole, _, part = split.partition("_")
    others = ", ".join(f"{name}_{part}" if part else name for name in SPLIT_NAMES[whole][1:])
    inside = f"directory {_spelt(folders)}, " if directory == data_dir else ""
    sought = f"{inside}{split}-*.parquet, {split}/*.parquet or {split}.({'|'.join(SUFFIXES)}), nor one named {others}"
    return f"data_dir is {str(data_dir)!r}; {directory} holds no {sought}; {_contents(directory)}"


def _spelt(folders: Sequence[str]) -> str:
    """Return "wsc.fixed or WSC", with one of the names that are the same to `tidy`."""
    first = {tidy(name): name for name in reversed(folders)}
    return " or ".join(name for name in folders if name in first.values())


def _contents(directory: Path) -> str:
    """Return "it holds a.zip, b/", with the first few entries."""
    entries = _entries(directory)
    names = [f"{path.name}/" if path.is_dir() else path.name for path in entries[:LISTED]]
    more = f" and {len(entries) - LISTED} more" if len(entries) > LISTED else ""
    unpack = "; unpack the .zip" if any(path.suffix.lower() == ".zip" for path in entries) else ""
    return f"it holds {', '.join(names)}{more}{unpack}" if names else "it is empty"


def _pattern(files: Sequence[Path]) -> str:
    return f"{files[0].name.split('-')[0]}-*{files[0].suffix}"


def describe(files: Sequence[Path]) -> str:
    """Return what messages call these files."""
    if len(files) == 1:
        return f"data_dir: {files[0]}"
    alike = files[0].parent / (_pattern(files) if "-" in files[0].name else f"*{files[0].suffix}")
    return f"data_dir: {alike}"
