"""Mutate every kind of file and text that comes from outside, and see what becomes of it.

    python tools/reliability/fuzz_files.py --inputs 12000 --seed 1 --out fuzz.json

Every input is a valid one with some mutations, a pure function of seed, target and number. Allowed
outcomes are a refusal (one line, :class:`dspt.errors.UserError`) and a value that is right: equal
to the original where a checksum guards it, within its rules where a text was changed. Anything else
is a failure: another exception, a line that is none, more than ``--limit`` seconds, a wrong value.
The memory of the process is limited, so that an absurd allocation is an exception too.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import yaml

from dspt.backbones import Backbone, load_backbone
from dspt.bench.grid import cells, override, parse_grid, preset_names, read_grid, read_preset
from dspt.bench.store import Store
from dspt.configuration import FitConfig, PromptConfig, build_config
from dspt.errors import UserError
from dspt.feature_cache import FeatureCache
from dspt.fitting import check_settings
from dspt.model import LinearModel, PromptModel
from dspt.noise import NoiseSpec, resolve
from dspt.result import EpochMetrics, RunResult
from dspt.run_folder import read_suspects, refuse_other_run
from dspt.training.checkpoint import load_checkpoint, save_checkpoint
from dspt.training.loop import TrainingState

MEMORY = 6 * 2**30
"""Address space that the inputs may take beyond what the process has when it starts."""

NUMBERS = [
    *("-1", "0", "1", "2", "1.5", "-0.0", "1e999", "1e-999", "NaN", "Infinity", "-Infinity"),
    *("65536", "2147483648", "99999999999999999999", "1" * 400, "0x10", "1_000", "\u0663"),
]
TOKENS = [
    *("null", "true", "[]", "{}", '""', "[[[[", "}}}}", ",", ":", '"', "\n", "\r\n", "\t", "\x00"),
    *("*a", "&a", "!!python/object/apply:os.getpid []", "2001-99-99", "!!binary x", "? ", "<<: "),
    *("\ud83d", "\u202e", "\ufeff", "\u0301", "../", "/dev/zero", "~", "%s", "{}{}", "\\u0000"),
    "[" * 3000,
    "a: " * 300,
    "x" * 5000,
]


def mutated_bytes(data: bytes, dice: random.Random) -> bytes:
    """One to four mutations that know nothing of the format."""
    content = bytearray(data)
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        n = len(content)
        at = dice.randrange(n + 1)
        match dice.randrange(9):
            case 0 | 1 | 2 if n:
                content[at % n] ^= 1 << dice.randrange(8)
            case 3 if n:
                content[at % n] = dice.randrange(256)
            case 4:
                del content[at:]
            case 5:
                del content[at : at + dice.randrange(1, 40)]
            case 6:
                content[at:at] = content[at : at + dice.randrange(1, 40)]
            case 7:
                content[at:at] = dice.randbytes(dice.randrange(1, 40))
            case _:
                edge = dice.choice([0, 1, n, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 100_000_001])
                content[:8] = edge.to_bytes(8, "little")
    return bytes(content)


def mutated_text(text: str, dice: random.Random) -> str:
    """One to four mutations that know words, numbers and lines."""
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        at = dice.randrange(len(text) + 1)
        numbers = list(re.finditer(r"\d+(\.\d+)?", text))
        words = list(re.finditer(r"[\w-]+", text))
        match dice.randrange(8):
            case 0 | 1 if numbers:
                hit = dice.choice(numbers)
                text = text[: hit.start()] + dice.choice(NUMBERS) + text[hit.end() :]
            case 2 if words:
                hit = dice.choice(words)
                text = text[: hit.start()] + dice.choice(TOKENS + NUMBERS) + text[hit.end() :]
            case 3 if len(words) > 1:
                hit, other = dice.choice(words), dice.choice(words)
                text = text[: hit.start()] + other[0] + text[hit.end() :]
            case 4:
                text = text[:at] + dice.choice(TOKENS) + text[at:]
            case 5:
                lines = text.splitlines(keepends=True) or [""]
                lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))
                text = "".join(lines)
            case 6:
                text = text[:at] + text[at + dice.randrange(1, 30) :]
            case _:
                text = text[:at] + chr(dice.randrange(1, 0x2FF)) + text[at + 1 :]
    return text


class Wrong(Exception):
    """A value came out that must not."""


def must(right: bool, what: str) -> None:
    """Raise :class:`Wrong` unless it is right."""
    if not right:
        raise Wrong(what)


@dataclass
class Target:
    """One kind of input.

    Attributes:
        attempt: take the input with this dice; returns "same", "accepted" or "refused" and raises
            :class:`UserError` for a refusal.
    """

    attempt: Callable[[random.Random], str]


@dataclass
class Tally:
    """What became of a target's inputs."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


class Ground:
    """Valid files of every kind, and a target for each."""

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        self.folder = folder
        self.backbone = backbone
        self.names = ("red", "dark green", "écru <b>")
        generator = torch.Generator().manual_seed(0)
        width = backbone.text_tower.width if backbone.text_tower else 0
        self.prompt = PromptModel(
            backbone,
            self.names,
            PromptConfig(n_ctx=2),
            0.02 * torch.randn(2, width, generator=generator),
        )
        dim = backbone.embed_dim
        self.head = LinearModel(
            backbone,
            self.names,
            torch.randn(len(self.names), dim, generator=generator),
            torch.randn(len(self.names), generator=generator),
        )
        self.features = torch.nn.functional.normalize(torch.randn(6, 4, generator=generator))
        self.digests = [bytes([number]) * 32 for number in range(6)]
        self.state = TrainingState(
            epoch=1,
            context=torch.randn(1, 2, 3, generator=generator),
            momentum=torch.randn(1, 2, 3, generator=generator),
            memory=[{"kept": torch.randn(4, generator=generator)}],
            metrics=[[_metrics(0), _metrics(1)]],
        )

    def targets(self) -> dict[str, Target]:
        """By name."""
        return {
            "prompt": Target(self._model(self.prompt, PromptModel)),
            "head": Target(self._model(self.head, LinearModel)),
            "prompt header, checksum right": Target(self._header()),
            "feature cache": Target(self._cache()),
            "checkpoint": Target(self._checkpoint()),
            "result.json": Target(self._result()),
            "run folder": Target(self._run_folder()),
            "bench folder": Target(self._bench_folder()),
            "grid": Target(self._grid()),
            "noise matrix": Target(self._matrix()),
            "noise text": Target(self._noise()),
            "options": Target(self._options),
        }

    def _model(
        self, model: PromptModel | LinearModel, kind: type[PromptModel] | type[LinearModel]
    ) -> Callable[[random.Random], str]:
        file = self.folder / "model"
        model.save(file)
        whole = file.read_bytes()

        def attempt(dice: random.Random) -> str:
            content = mutated_bytes(whole, dice)
            file.write_bytes(content)
            found = kind.load(file, backbone=self.backbone)
            must(found.fingerprint == model.fingerprint, "other numbers under a right checksum")
            must(found.class_names == model.class_names, "other names under a right checksum")
            return "same"

        return attempt

    def _header(self) -> Callable[[random.Random], str]:
        from safetensors import safe_open
        from safetensors.torch import save_file

        from dspt.classifier import _checksum

        file = self.folder / "prompt"
        self.prompt.save(file)
        with safe_open(file, framework="pt") as stored:
            ((key, entry),) = stored.metadata().items()
        told = json.loads(entry)["about"]

        def attempt(dice: random.Random) -> str:
            text = mutated_text(told, dice).encode("utf-8", "replace").decode()
            tensors = {"context": self.prompt.context}
            header = json.dumps({"checksum": _checksum(text, tensors), "about": text})
            save_file(tensors, file, metadata={key: header})
            found = PromptModel.load(file, backbone=self.backbone)
            must(len(set(found.class_names)) == len(found.class_names) >= 2, "class names")
            logits = found.logits(torch.eye(self.backbone.embed_dim))
            must(bool(logits.isfinite().all()), "logits that are not finite")
            return "accepted"

        return attempt

    def _cache(self) -> Callable[[random.Random], str]:
        place = self.folder / "cache"
        cache = FeatureCache(place, 0)
        for digest, feature in zip(self.digests, self.features, strict=True):
            cache.add(digest, feature)
        cache.flush()
        (shard,) = place.rglob("*.safetensors")
        whole = shard.read_bytes()

        def attempt(dice: random.Random) -> str:
            content = mutated_bytes(whole, dice)
            shard.write_bytes(content)
            found = FeatureCache(place, 0)
            rows = [row for digest in self.digests if (row := found.get(digest)) is not None]
            if rows:
                must(len(rows) == len(self.digests), "a part of a shard")
                must(bool((np.stack(rows) == self.features.numpy()).all()), "other features")
                return "same"
            must(found.damaged == [shard], "lost and not reported")
            return "refused"

        return attempt

    def _checkpoint(self) -> Callable[[random.Random], str]:
        file = self.folder / "checkpoint"
        save_checkpoint(file, self.state, "me")
        whole = file.read_bytes()

        def attempt(dice: random.Random) -> str:
            file.write_bytes(mutated_bytes(whole, dice))
            told: list[str] = []
            found = load_checkpoint(file, "me", torch.device("cpu"), told.append)
            if found is None:
                must(len(told) == 1 and len(told[0].splitlines()) == 1, f"said {told}")
                return "refused"
            must(torch.equal(found.context, self.state.context), "another context")
            must(torch.equal(found.momentum, self.state.momentum), "another momentum")
            must(torch.equal(found.memory[0]["kept"], self.state.memory[0]["kept"]), "memory")
            must((found.epoch, found.metrics) == (1, self.state.metrics), "other metrics")
            return "same"

        return attempt

    def _result(self) -> Callable[[random.Random], str]:
        file = self.folder / "result.json"
        text = _result_text()

        def attempt(dice: random.Random) -> str:
            changed = mutated_text(text, dice)
            file.write_text(changed, encoding="utf-8", errors="surrogatepass")
            found = RunResult.read(file)
            must(found.final is None or 0 <= found.final.accuracy <= 1, "an impossible accuracy")
            return "same" if found.model_dump_json(indent=1) + "\n" == text else "accepted"

        return attempt

    def _run_folder(self) -> Callable[[random.Random], str]:
        """``config.json`` and ``suspects.csv`` of a run."""
        place = self.folder / "run"
        place.mkdir()
        result = RunResult.model_validate_json(_result_text())
        config = build_config(data="demo", seed=3)
        names = (
            "rank,image,given_label,proposed_label,zero_shot_label,true_label,probability_given,"
            "probability_proposed,suppression"
        )
        suspects = f"{names}\n1,a.png,red,green,green,,0.25,0.5,0.75\n2,b,red,red,red,red,1,1,0\n"

        def attempt(dice: random.Random) -> str:
            which = dice.randrange(2)
            text = suspects if which else config.model_dump_json(indent=1)
            changed = mutated_text(text, dice).encode("utf-8", "surrogatepass")
            (place / ("suspects.csv" if which else "config.json")).write_bytes(changed)
            if which:
                for suspect in read_suspects(place, result):
                    must(0 <= suspect.given < len(result.data.class_names), "an impossible class")
            else:
                refuse_other_run(place, config)
            return "accepted"

        return attempt

    def _bench_folder(self) -> Callable[[random.Random], str]:
        """``bench.json``, ``failure.json``, ``result.json`` and the records of groups."""
        place = self.folder / "bench"
        store = Store(place)
        cell = build_config(data="demo", seed=3)
        grid = {"data": ["demo"], "methods": ["ce"]}
        store.remember(grid)
        store.prepare(cell)
        store.write_group([cell])
        files = {
            place / "bench.json": (place / "bench.json").read_text(),
            store.folder(cell) / "failure.json": '{"reason": "diverged", "final": true}',
            store.folder(cell) / "result.json": _result_text(),
            **{path: path.read_text() for path in (place / "groups").glob("*.json")},
        }

        def attempt(dice: random.Random) -> str:
            for path, text in files.items():
                path.write_text(text, encoding="utf-8")
            path = dice.choice(list(files))
            changed = mutated_text(files[path], dice)
            path.write_text(changed, encoding="utf-8", errors="surrogatepass")
            must(store.groups() in ([], [[cell]]), "another group")
            store.failure(cell)
            must(store.finished(cell) is None, "a run of other settings")
            store.remember(grid)
            return "accepted"

        return attempt

    def _grid(self) -> Callable[[random.Random], str]:
        file = self.folder / "grid.yaml"
        texts = [yaml.safe_dump(read_preset(name)) for name in preset_names()]
        texts.append(
            "data: [demo, {data: other, noise: 'column:x', holdout: 0.1}]\nmethods: [ce, 'gce:q=0.5"
            "']\nkinds: [symmetric]\nrates: [0, 0.5]\nshots: [4, all]\nseeds: [1, 2]\nalso:\n"
            "  - {kinds: [pair], rates: [0.25]}\nexclude: [{method: ce, seed: 2}]\n"
        )

        def attempt(dice: random.Random) -> str:
            changed = mutated_text(dice.choice(texts), dice)
            file.write_text(changed, encoding="utf-8", errors="surrogatepass")
            fields = read_grid(file)
            found = cells(parse_grid(override(fields, {})))
            for cell in found:
                must(0 <= cell.noise.rate <= 1 and (cell.shots or 1) >= 1, "out of range")
                with contextlib.suppress(UserError):
                    check_settings(cell)
            return "accepted"

        return attempt

    def _matrix(self) -> Callable[[random.Random], str]:
        texts = {
            "matrix.csv": "0.5,0.25,0.25\n0,1,0\n0.1,0.2,0.7\n",
            "matrix.json": "[[0.5, 0.25, 0.25], [0, 1, 0], [0.1, 0.2, 0.7]]",
        }

        def attempt(dice: random.Random) -> str:
            name = dice.choice(list(texts))
            file = self.folder / name
            changed = mutated_text(texts[name], dice)
            file.write_text(changed, encoding="utf-8", errors="surrogatepass", newline="")
            resolve(NoiseSpec.parse(f"matrix:{file}"))
            text = file.read_text(encoding="utf-8-sig")
            rows = json.loads(text) if name.endswith("json") else _rows(text)
            matrix = np.array(rows, dtype=float)
            must(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1], "not square")
            must(bool((matrix >= 0).all()), "a negative chance")
            must(bool(np.isclose(matrix.sum(axis=1), 1, atol=1e-5).all()), "rows do not sum to 1")
            return "accepted"

        return attempt

    def _noise(self) -> Callable[[random.Random], str]:
        texts = ["none", "symmetric:0.5", "replace-pair:0.25", "instance:0.1", "column:x"]

        def attempt(dice: random.Random) -> str:
            text = mutated_text(dice.choice(texts), dice)
            try:
                spec = NoiseSpec.parse(text)
            except ValueError as error:  # pydantic and build_config make a line of it
                must(len(str(error).splitlines()) == 1, f"more than a line: {error}")
                return "refused"
            must(NoiseSpec.parse(str(spec)) == spec, "its own text is not read back")
            must(0 <= spec.rate <= 1, "a rate out of range")
            build_config(data="demo", noise=text)
            return "accepted"

        return attempt

    def _options(self, dice: random.Random) -> str:
        values: list[Any] = [
            *(-1, 0, 1, 2, 1.5, math.nan, math.inf, -math.inf, 10**30, -(10**30), 2**63, 1e308),
            *("", "a", "\x00", "none", "\n", "dspt", "x" * 300, None, True, [], {}, (), b"x", [1]),
            *({"q": 2}, {"q": math.nan}, {"q": "x"}, {"epochs": 0}, {"lr": math.inf}, {"lr": -1}),
            *({"n_ctx": 0}, {"n_ctx": 10**12}, {"position": "left"}, {"batch_size": 10**30}),
        ]
        methods = ["dspt", "gce", "nlprompt", "zero-shot", "sce", "elr", "joapr", "ce"]
        fields = {"data": "demo", "method": dice.choice(methods)}
        for name in dice.sample(sorted(FitConfig.model_fields), dice.choice([1, 1, 2, 3])):
            fields[name] = dice.choice(values)
        config = build_config(**fields)
        check_settings(config)
        for name, value in config.model_dump().items():
            must(not isinstance(value, float) or math.isfinite(value), f"{name} is {value}")
        must(0 <= config.holdout < 1 and (config.shots or 1) >= 1, "out of range")
        must(config.recipe.epochs >= 1 and math.isfinite(config.recipe.lr), "a recipe")
        return "accepted"


def _rows(text: str) -> list[list[float]]:
    return [[float(cell) for cell in row] for row in csv.reader(io.StringIO(text)) if any(row)]


def _metrics(epoch: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        lr=None,
        train_loss=1 / 7,
        accuracy_given=1 / 3,
        accuracy_true=None,
        accuracy_test=0.5,
        gradient_norm_clean=None,
        gradient_norm_mislabelled=None,
    )


def _result_text() -> str:
    counts = {"n": 4, "accuracy": 0.75, "interval": (0.3, 0.95), "calibration_error": 0.1}
    evaluation = {
        **counts,
        "mean_confidence": 0.8,
        "per_class_accuracy": [0.5, None],
        "per_class_n": [4, 0],
    }
    told = {
        "config": build_config(data="elsewhere", noise="symmetric:0.5").model_dump(mode="json"),
        "backbone": {
            "name": "tiny",
            "pretrained": None,
            "fingerprint": "ab" * 32,
            "embed_dim": 16,
            "image_size": (32, 32),
            "context_length": 77,
            "logit_scale": 100.0,
            "precision": "fp32",
            "text_path": "shared-prefix",
        },
        "data": {
            "name": "elsewhere",
            "fingerprint": "cd" * 32,
            "class_names": ["red", "green"],
            "shots": 16,
            "n_train": 4,
            "n_test": 4,
            "train_per_class": [2, 2],
            "test_source": "split",
        },
        "noise": {
            "spec": "symmetric:0.5",
            "true_labels_known": True,
            "n_wrong": 2,
            "realised_rate": 0.5,
            "transition": [[1, 1], [1, 1]],
        },
        "zero_shot": {
            "template": "a photo of a {}.",
            "test": evaluation,
            "train_accuracy_given": 0.5,
            "train_accuracy_true": 0.75,
        },
        "epochs": [_metrics(0).model_dump(), _metrics(1).model_dump()],
        "final": evaluation,
        "context_fingerprint": "ef" * 32,
        "warnings": ["little data"],
        "time": {
            "image_features": 0.1,
            "training": 0.2,
            "total": 0.3,
            "device": "cpu",
            "threads": 1,
        },
        "environment": {
            "dspt": "0",
            "torch": "2",
            "open_clip": "3",
            "python": "3.11",
            "platform": "x",
            "processor_count": 1,
        },
    }
    return RunResult.model_validate(told).model_dump_json(indent=1) + "\n"


class TookTooLong(Exception):
    """An input took longer than allowed."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TookTooLong` in the block when it takes longer."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tried(target: Target, dice: random.Random, limit: float) -> tuple[str, str]:
    """(outcome, what was said of it) for one input."""
    try:
        with time_limit(limit):
            return target.attempt(dice), ""
    except UserError as error:
        if len(str(error).splitlines()) != 1 or len(str(error)) > 2000:
            return "failed", f"no line to read: {str(error)[:300]!r}"
        return "refused", str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return "failed", f"{type(error).__name__} at {where}: {str(error)[:300]}"


def campaign(
    ground: Ground,
    inputs: int,
    seed: int,
    limit: float = 20.0,
    only: str | None = None,
    first: int = 0,
) -> dict[str, Tally]:
    """Try ``inputs`` inputs, equally many of every target."""
    targets = {name: t for name, t in ground.targets().items() if only in (None, name)}
    tallies = {name: Tally() for name in targets}
    each = -(-inputs // len(targets))
    for name, target in targets.items():
        tally, began = tallies[name], time.perf_counter()
        for number in range(first, first + each):
            outcome, said = tried(target, random.Random(f"{seed}/{name}/{number}"), limit)
            tally.inputs += 1
            tally.outcomes[outcome] += 1
            if outcome == "failed":
                tally.failures.append({"number": number, "what": said})
        tally.seconds = time.perf_counter() - began
    return tallies


def limit_memory() -> None:
    """So that an absurd allocation fails here, and not the machine."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        held = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=20.0, help="seconds an input may take")
    parser.add_argument("--only", help="one target, by name")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--model", default="default", help="backbone of the prompts")
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args()
    backbone = load_backbone(asked.model, device="cpu")
    with tempfile.TemporaryDirectory() as place:
        ground = Ground(Path(place), backbone)
        limit_memory()
        tallies = campaign(ground, asked.inputs, asked.seed, asked.limit, asked.only, asked.first)
    failed = sum(len(tally.failures) for tally in tallies.values())
    told = {
        "seed": asked.seed,
        "inputs": sum(tally.inputs for tally in tallies.values()),
        "failures": failed,
        "seconds": round(sum(tally.seconds for tally in tallies.values()), 1),
        "targets": {
            name: {
                "inputs": tally.inputs,
                **dict(sorted(tally.outcomes.items())),
                "seconds": round(tally.seconds, 1),
                "failures": tally.failures[:20],
            }
            for name, tally in tallies.items()
        },
    }
    text = json.dumps(told, indent=1) + "\n"
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
