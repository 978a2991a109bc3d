"""``dspt predict`` on many pictures, on tables and patterns, and when it is interrupted."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.acceptance.calling import Caller
from tests.tiny import write_model, write_pictures

from dspt.classifier import Classifier
from dspt.fitting import fit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ground = tmp_path_factory.mktemp("predict")
    pictures = write_pictures(ground / "pictures", n=6)
    model = write_model(ground / "model")
    fit(pictures, model, device="cpu", out=ground / "run", recipe={"epochs": 1})
    return ground / "run"


@pytest.fixture
def pictures(run: Path) -> Path:
    return run.parent / "pictures"


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_folder_a_pattern_and_tables_are_the_same_pictures(
    dspt: Caller, run: Path, pictures: Path
) -> None:
    def predicted(*places: Path | str) -> list[dict[str, str]]:
        return table(dspt.ok("predict", run, *places, "-q", "--top", "2", "--format", "csv").out)

    folder = predicted(pictures)
    assert len(folder) == 2 * 18
    assert predicted(f"{pictures}/*/*.png") == folder
    assert predicted(f"{pictures}/**/*.png") == folder
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    (pictures / "list.csv").write_text("file\n" + "".join(f"{name}\n" for name in names))
    (pictures / "list.tsv").write_text("place\tn\n" + "".join(f"{name}\t1\n" for name in names))
    pq.write_table(pa.table({"image": names}), pictures / "list.parquet")
    assert predicted(pictures / "list.csv") == folder
    assert predicted(pictures / "list.parquet") == folder
    tsv = dspt.ok(
        *("predict", run, pictures / "list.tsv", "--image-column", "place", "-q"),
        *("--top", "2", "--format", "csv"),
    )
    assert table(tsv.out) == folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "--image-column"),
        ("image\nhttps://example.org/cat.jpg\n", "is a URL"),
        ("image\n/etc/passwd\n", "absolute"),
        ("image\n", "names no picture"),
        ("image,n\n,1\n", "line 2"),
    ],
)
def test_a_table_that_names_no_pictures_is_refused(
    dspt: Caller, run: Path, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "list.csv").write_text(text)
    line = dspt.refused("predict", run, tmp_path / "list.csv", "-q")
    assert words in line
    assert "list.csv" in line


def test_a_pattern_without_a_match_is_refused(dspt: Caller, run: Path, tmp_path: Path) -> None:
    assert "*.png" in dspt.refused("predict", run, f"{tmp_path}/*.png", "-q")


def test_pictures_are_read_batch_by_batch(
    dspt: Caller, run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read for a batch is gone when the next one is read."""
    alive: list[weakref.ref[object]] = []
    most = 0
    original = Classifier._read

    def counting(self: Classifier, path: Path) -> object:
        nonlocal most
        tensor = original(self, path)
        alive.append(weakref.ref(tensor))
        most = max(most, sum(reference() is not None for reference in alive))
        return tensor

    monkeypatch.setattr(Classifier, "_read", counting)
    out = dspt.ok("predict", run, *([pictures] * 10), "-q", "--format", "jsonl").out
    assert len(out.splitlines()) == len(alive) == 180
    assert most <= 2 * 32  # the batch that is read and the one before


@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals")
def test_an_interruption_leaves_what_was_there(run: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    out.write_text("from before")
    slow = (
        "import time, dspt.classifier as c; from dspt.cli import main; read = c.Classifier._read\n"
        "c.Classifier._read = lambda *a: (time.sleep(0.01), read(*a))[1]\n"
        # A shell without job control has its background jobs, and theirs, ignore the signal.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nmain()"
    )
    call = [
        "predict",
        str(run),
        *[str(pictures)] * 50,
        "--format",
        "parquet",
        "--out",
        str(out),
        "-q",
    ]
    with subprocess.Popen(
        [sys.executable, "-c", slow, *call], stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out.*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "interrupted; the same command goes on where it stopped\n"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_text() == "from before"


def test_standard_output_is_json_line_by_line(dspt: Caller, run: Path, pictures: Path) -> None:
    out = dspt.ok("predict", run, pictures, "-q", "--top", "5", "--format", "jsonl").out
    for line in out.splitlines():
        row = json.loads(line)
        chances = [guess["probability"] for guess in row["predictions"]]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1, abs=1e-5)  # five of three classes are all
