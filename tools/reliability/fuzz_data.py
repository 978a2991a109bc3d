"""Mutated data against the reader: every input must load rightly or be refused in one line.

    python -m tools.reliability.fuzz_data --inputs 10000 --seed 1 --report fuzz.json

An input is a small valid data folder with one to four things changed: bits, bytes, tokens and
lengths of a file, or files that are removed, copied, or turned into folders, links and pipes; and
often an option too. It is loaded, its shots are drawn, all its pictures are read, and some inputs
also go through the command line. What counts as a failure:

- an exception other than UserError, a crash of the interpreter, more than LIMIT_S seconds;
- a refusal that is not one line, that names no file or folder of the input, or no way to mend it;
- a data set whose pictures and labels are not what a plain second reader finds in the same files;
- a file written in the folder.

Input number i of a seed is the same everywhere, so ``--only 1234`` repeats one.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dspt.cli import main as dspt
from dspt.data import ImageDataset, draw_shots, load_dataset
from dspt.data.summary import summarise
from dspt.errors import UserError

LIMIT_S = 20
MEMORY = 6 * 2**30
COMMAND_LINE = 20  # every so many inputs

Files = dict[str, bytes]
Pairs = list[tuple[str, str]]  # key, class name

CLASSES = ("cat", "hot_dog", "red fox")


# --- valid data ---


def _picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [_picture(shade) for shade in range(12)]


def _delimited(delimiter: str, integers: bool) -> Files:
    files = {f"p/{i}.png": data for i, data in enumerate(PICTURES)}
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["image", "label", "split", "human"])
    for i in range(12):
        label = str(i % 3) if integers else CLASSES[i % 3]
        human = str((i + 1) % 3) if integers else CLASSES[(i + 1) % 3]
        writer.writerow([f"p/{i}.png", label, ("train", "test")[i % 4 == 3], human])
    files["train.csv" if delimiter == "," else "train.tsv"] = buffer.getvalue().encode()
    if integers:
        files["classes.txt"] = "\n".join(CLASSES).encode()
    return files


def _table(first: int, last: int, structs: bool) -> pa.Table:
    numbers = range(first, last)
    cells: list[Any] = [PICTURES[i] for i in numbers]
    if structs:
        cells = [{"bytes": cell, "path": None} for cell in cells]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()}) if structs else pa.binary()
    table = pa.table({"image": pa.array(cells, kind), "label": [i % 3 for i in numbers]})
    features = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    about = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": about})


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=3)
    return sink.getvalue()


def _arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=3)
    return sink.getvalue()


def _saved(first: int, last: int) -> Files:
    name = "data-00000-of-00001.arrow"
    label = {"names": list(CLASSES), "_type": "ClassLabel"}
    info = {"features": {"image": {"_type": "Image"}, "label": label}}
    return {
        name: _arrow(_table(first, last, True)),
        "state.json": json.dumps({"_data_files": [{"filename": name}]}).encode(),
        "dataset_info.json": json.dumps(info).encode(),
    }


def _split_file() -> Files:
    rows = [[f"{i}.png", i % 3, CLASSES[i % 3]] for i in range(12)]
    text = json.dumps({"train": rows[:8], "val": [], "test": rows[8:]})
    files = {f"images/{i}.png": data for i, data in enumerate(PICTURES)}
    return {**files, "split_zhou_Toy.json": text.encode()}


def valid() -> dict[str, Files]:
    """One data folder of every layout, as relative path and bytes."""
    classes = {f"{CLASSES[i % 3]}/{i}.png": data for i, data in enumerate(PICTURES)}
    splits = {
        f"{'test' if i > 8 else 'train'}/{name}": data
        for i, (name, data) in enumerate(classes.items())
    }
    return {
        "csv": _delimited(",", False),
        "csv with classes.txt": _delimited(",", True),
        "tsv": _delimited("\t", False),
        "parquet": {
            "train.parquet": _parquet(_table(0, 9, False)),
            "test.parquet": _parquet(_table(9, 12, False)),
        },
        "hub": {
            "data/train-00000-of-00002.parquet": _parquet(_table(0, 5, True)),
            "data/train-00001-of-00002.parquet": _parquet(_table(5, 9, True)),
            "data/test-00000-of-00001.parquet": _parquet(_table(9, 12, True)),
        },
        "saved": _saved(0, 12),
        "saved splits": {
            "dataset_dict.json": json.dumps({"splits": ["train", "test"]}).encode(),
            **{f"train/{name}": data for name, data in _saved(0, 9).items()},
            **{f"test/{name}": data for name, data in _saved(9, 12).items()},
        },
        "split file": _split_file(),
        "class folders": classes,
        "class folders of splits": splits,
    }


# --- mutations ---

TOKENS = [
    b"", b" ", b"\n", b"\r", b"\0", b'"', b"'", b",", b"\t", b"{", b"}", b"[", b"]", b"-1", b"0",
    b"1.5", b"3", b"99", b"1e999", b"NaN", b"nan", b"null", b"true", b"-0", b"00", b"9" * 30,
    b"9" * 5000, b"../x.png", b"/etc/passwd", b"C:\\x.png", b"http://a.example/x.png", b"data:,",
    b"p/0.png", b"0.png", b"cat", b"hot dog", b"hot_dog", b"Cat", b"cat ", b"train", b"test",
    b"label", b"image", b"split", "ä".encode(), b"\xff", b"\xef\xbb\xbf", "\u2028".encode(),
    "\u202e".encode(), b"\xed\xa0\x80", b"a" * 300, b"[" * 3000,
]  # fmt: skip


def mutate_bytes(data: bytes, dice: random.Random) -> bytes:
    """One change to the content of a file."""
    kind = dice.randrange(9)
    at = dice.randrange(len(data) + 1)
    length = min(1 << dice.randrange(8), len(data) - at)
    if kind == 0 and data:
        at = min(at, len(data) - 1)
        return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + data[at + length :]
    if kind == 3:
        return data[:at] + data[at : at + length] + data[at:]
    if kind == 4:
        return data[:at] + dice.randbytes(length) + data[at + length :]
    if kind == 5:
        return data[:at] + dice.choice(TOKENS) + data[at:]
    words = list(re.finditer(rb"[A-Za-z0-9_./-]+", data))
    if kind == 6 and words:  # a word of a text, or what looks like one, becomes another
        word = dice.choice(words)
        return data[: word.start()] + dice.choice(TOKENS) + data[word.end() :]
    lines = data.split(b"\n")
    if kind == 7:
        del lines[dice.randrange(len(lines))]
    else:
        lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))
    return b"\n".join(lines)


def _index_files(names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".png")] or names


def mutate_folder(folder: Path, dice: random.Random) -> None:
    """One change to the files of a folder."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names = [name for name in names if not (folder / name).is_symlink()]
    if not names:
        return
    name = dice.choice(_index_files(names) if dice.random() < 0.8 else names)
    path = folder / name
    other = folder / dice.choice(names)
    kind = dice.randrange(14)
    if kind < 8:
        path.write_bytes(mutate_bytes(path.read_bytes(), dice))
    elif kind == 8:
        path.unlink()
    elif kind == 9:
        path.write_bytes(other.read_bytes())
    elif kind == 10:
        copy = path.with_name(dice.choice(["train", "test", "1", "é", "x y"]) + path.suffix)
        if not os.path.lexists(copy):
            copy.write_bytes(path.read_bytes())
    elif kind == 11:
        path.unlink()
        dice.choice([path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(path)])()
    elif kind == 12:
        path.unlink()
        path.symlink_to(dice.choice(["/etc/passwd", "nowhere", "..", other.name]))
    else:
        target = path.parent.parent / dice.choice(["val", "test", "Cat", "a\nb", "empty"])
        if path.parent != folder and not target.exists():
            target.mkdir()
            if dice.random() < 0.5:
                for file in path.parent.iterdir():
                    if file.is_file():
                        (target / file.name).write_bytes(file.read_bytes())


def options(dice: random.Random) -> dict[str, Any]:
    """Mostly none; else one that may be wrong."""
    return dice.choice(
        [{}] * 12
        + [
            {"label_column": dice.choice(["human", "label", "image", "lable", ""])},
            {"image_column": dice.choice(["image", "label", "img"])},
            {"split_column": dice.choice(["split", "human"])},
            {"holdout": dice.choice([0, 0.5, 0.999, 1, -1, float("nan")])},
            {"classes": dice.choice(["base", "new", "first:2", "first:0", "first:9", ""])},
        ]
    )


# --- a second, plain reader ---


def truth(folder: Path) -> Pairs:
    """(key, class name) of every row, by readers that know nothing of ours."""
    for path in folder.glob("split_zhou_*.json"):
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            rows = [row for split in ("train", "val", "test") for row in content.get(split, [])]
            return [(_plain_path(path), name.replace("_", " ")) for path, _, name in rows]
    tables = _tables(folder)
    if tables:
        pairs = []
        for path in tables:
            read = _truth_of_text if path.suffix in (".csv", ".tsv") else _truth_of_table
            pairs += read(path, folder)
        return pairs
    train = folder / "train"
    depth = 2 if train.is_dir() and any(path.is_dir() for path in train.iterdir()) else 1
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            parts = (Path(parent) / name).relative_to(folder).parts
            if name.endswith(".png") and len(parts) > depth:
                found.append((printed("/".join(parts)), parts[depth - 1].replace("_", " ")))
    return found


def _tables(folder: Path) -> list[Path]:
    """The tables of a folder, in any order."""
    stems = ("train", "val", "valid", "validation", "test")
    named = [folder / f"{stem}.{kind}" for stem in stems for kind in ("csv", "tsv", "parquet")]
    named = [path for path in named if path.is_file()]
    if any(path.stem == "train" for path in named):
        return named
    places = []
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text("utf-8-sig"))["splits"]
        places = [folder / name for name in splits if name in stems]
    elif (folder / "state.json").is_file():
        places = [folder]
    for place in places:
        state = json.loads((place / "state.json").read_text("utf-8-sig"))
        named += [place / _plain_path(entry["filename"]) for entry in state["_data_files"]]
    return named if places else list((folder / "data").glob("*-of-*.parquet"))


def printed(name: str) -> str:
    return name.replace("\n", "\\n")


def _plain_path(text: str) -> str:
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    return "/".join(parts)


def _truth_of_text(path: Path, folder: Path) -> Pairs:
    text = path.read_bytes().decode("utf-8-sig")
    delimiter = "\t" if path.suffix == ".tsv" else ","
    lines = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    header = [name.strip().lower() for name in lines[0]]
    image, label = header.index("image"), header.index("label")
    listed = folder / "classes.txt"
    names = None
    if listed.is_file():
        names = [line.strip() for line in listed.read_text("utf-8-sig").split("\n")]
    pairs = []
    numbers = names is not None and all(row[label].strip().isdecimal() for row in lines[1:])
    for row in lines[1:]:
        name = row[label].strip()
        if names is not None and numbers:
            name = names[int(name)]
        pairs.append((_plain_path(row[image].strip()), name.replace("_", " ")))
    return pairs


def _truth_of_table(path: Path, folder: Path) -> Pairs:
    if path.suffix == ".parquet":
        table = pq.ParquetFile(path).read(columns=["label"])
        metadata = pq.read_schema(path).metadata or {}
    else:
        table = pa.ipc.open_stream(path.read_bytes()).read_all()
        metadata = table.schema.metadata or {}
    names = None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    info = path.with_name("dataset_info.json")
    if path.suffix == ".arrow" and info.is_file():
        features = json.loads(info.read_text("utf-8-sig")).get("features")
        names = features["label"].get("names") if features else names
    key = path.relative_to(folder).as_posix()
    labels = table.column("label").to_pylist()
    return [
        (f"{key}#{row}", (names[label] if names else str(label)).replace("_", " "))
        for row, label in enumerate(labels)
    ]


# --- one input ---


class Failure(Exception):
    """What must not happen."""


class TooSlow(BaseException):
    """Not an Exception, so that nothing catches it on the way."""


def run(number: int, seed: int, layouts: dict[str, Files], place: Path) -> tuple[str, str]:
    """Make an input, load it and judge; (layout, "loaded" or "refused").

    Raises:
        Failure: with what went wrong.
    """
    dice = random.Random(f"{seed}/{number}")
    kind = dice.choice(sorted(layouts))
    folder = place / "input"
    for name, data in layouts[kind].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    try:
        for _ in range(dice.choice([1, 1, 1, 2, 4])):
            mutate_folder(folder, dice)
        given = options(dice)
        before = _listing(folder)
        with _time_limit():
            outcome = _load(folder, given, dice)
            if number % COMMAND_LINE == 0:
                _call(folder, given, outcome)
        if _listing(folder) != before:
            raise Failure("the folder was changed")
    except (TooSlow, RecursionError, MemoryError) as error:
        raise Failure(f"{kind}: {type(error).__name__}") from error
    except Failure as error:
        raise Failure(f"{kind}: {error}") from error.__cause__
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise Failure(
            f"{kind}: {type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        ) from error
    finally:
        shutil.rmtree(folder)
    return kind, outcome


def _load(folder: Path, given: dict[str, Any], dice: random.Random) -> str:
    try:
        dataset = load_dataset(folder, **given)
    except UserError as error:
        _check_message(str(error), folder, list(given))
        return "refused"
    if not set(given) & {"label_column", "image_column", "classes"}:
        _compare(folder, dataset)
    for message in summarise(dataset, pictures=True).unreadable or []:
        _check_message(message, folder, dataset.keys(range(len(dataset.images))))
    train = dataset.splits["train"]
    shots = dice.choice([1, 2, 100, 0])
    try:
        drawn = draw_shots(
            dataset.labels, train, shots, 1, dataset.keys(train), dataset.class_names
        )
        if not set(drawn) <= set(train):
            raise Failure("a shot that is no training picture")
    except UserError as error:
        _check_message(str(error), folder, ["shots", "class "])
    return "loaded"


def _compare(folder: Path, dataset: ImageDataset) -> None:
    """The data set must hold exactly what the second reader finds."""
    keys = dataset.keys(range(len(dataset.images)))
    if len(set(keys)) < len(keys):
        raise Failure("keys occur twice")
    ours = Counter(
        (key, dataset.class_names[label]) for key, label in zip(keys, dataset.labels, strict=True)
    )
    theirs = Counter(truth(folder))
    if ours != theirs:
        only = [*(ours - theirs), *(theirs - ours)][:3]
        raise Failure(f"wrong in silence: {len(ours)} and {len(theirs)} pictures, {only}")
    used = np.concatenate(list(dataset.splits.values()))
    if sorted(used) != list(range(len(keys))):
        raise Failure("some pictures are in no split")


def _check_message(message: str, folder: Path, names: list[str]) -> None:
    if len(message.splitlines()) != 1:
        raise Failure(f"not one line: {message!r}")
    places = [str(folder), *names]
    if not any(name and name in message for name in places):
        raise Failure(f"names no place: {message}")
    if "; " not in message and "must be" not in message:
        raise Failure(f"names no way to mend it: {message}")
    if len(message) > 2000:
        raise Failure(f"{len(message)} characters: {message[:200]}")


def _call(folder: Path, given: dict[str, Any], outcome: str) -> None:
    arguments = ["data", "show", str(folder), "--no-pictures", "--quiet"]
    for name, value in given.items():
        arguments.append(f"--{name.replace('_', '-')}={value}")
    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            dspt(arguments)
        except SystemExit as error:
            code = error.code
    if code != (0 if outcome == "loaded" else 2):
        raise Failure(f"exit code {code}, though {outcome}: {err.getvalue()[:500]}")


def _listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# --- many inputs ---


def fuzz(
    seed: int, numbers: range, on_start: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Run the inputs with these numbers; how many loaded and were refused, and all failures."""
    layouts = valid()
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in layouts}
    failures = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        for number in numbers:
            if on_start is not None:
                on_start(number)
            try:
                kind, outcome = run(number, seed, layouts, Path(place))
                counts[kind][outcome] += 1
            except Failure as error:
                failures.append({"input": number, "what": str(error)})
    return {"counts": {kind: dict(found) for kind, found in counts.items()}, "failures": failures}


def campaign(seed: int, inputs: int) -> dict[str, Any]:
    """All inputs in child processes, so that a crash of one is counted and the rest go on."""
    started = time.monotonic()
    counts: dict[str, Counter[str]] = {}
    failures: list[dict[str, Any]] = []
    first = 0
    while first < inputs:
        with tempfile.TemporaryDirectory(prefix="fuzz-parent-") as place:
            answer, at = Path(place) / "answer.json", Path(place) / "at"
            command = [sys.executable, "-m", "tools.reliability.fuzz_data", "--child", place]
            last = min(first + 500, inputs)
            command += ["--seed", str(seed), "--first", str(first), "--inputs", str(last)]
            code = subprocess.run(command, check=False).returncode
            if code == 0:
                found = json.loads(answer.read_text())
                for kind, numbers in found["counts"].items():
                    counts.setdefault(kind, Counter()).update(numbers)
                failures += found["failures"]
                first = last
            else:  # what ran before the crash in this process is run again without it
                crashed = int(at.read_text())
                failures.append({"input": crashed, "what": f"the interpreter died, code {code}"})
                first = crashed + 1
        print(f"{first} of {inputs} inputs, {len(failures)} failures", file=sys.stderr)
    return {
        "seed": seed,
        "inputs": inputs,
        "seconds": round(time.monotonic() - started, 1),
        "counts": {kind: dict(found) for kind, found in sorted(counts.items())},
        "failures": failures,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Mutated data against the reader.")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run one input and show its traceback")
    parser.add_argument("--report", type=Path, help="JSON file; default: standard output")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only is not None:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            print(run(given.only, given.seed, valid(), Path(place)))
    elif given.child is not None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        at = given.child / "at"
        found = fuzz(
            given.seed, range(given.first, given.inputs), lambda n: at.write_text(str(n)) and None
        )
        (given.child / "answer.json").write_text(json.dumps(found))
    else:
        report = json.dumps(campaign(given.seed, given.inputs), indent=1)
        if given.report is None:
            print(report)
        else:
            given.report.write_text(report + "\n")


if __name__ == "__main__":
    main()
