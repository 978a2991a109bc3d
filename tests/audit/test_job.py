"""The audit of data and of runs: what is written, what is refused, what stays the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.audit.ground import CLASSES, WRONG, N, rows_of, write_planted
from tests.tiny import count_encoded, draw, encoded, files_of, write_model

from dspt.audit import EVIDENCE
from dspt.audit.job import audit, data_settings, is_run, run_settings
from dspt.audit.record import CHECKPOINT_FILE, AuditRecord, AuditReport, read_report
from dspt.errors import UserError
from dspt.fitting import fit
from dspt.training.checkpoint import save_checkpoint
from dspt.training.loop import TrainingState


def audited(data: Path | str, model: str, out: Path, **settings: Any) -> AuditReport:
    return audit(data_settings(str(data), backbone=model, **settings), out=out, device="cpu")


@pytest.fixture(scope="module")
def report(
    planted: Path, model: str, tmp_path_factory: pytest.TempPathFactory, _module_epoch: None
) -> AuditReport:
    return audited(planted, model, tmp_path_factory.mktemp("audit-out") / "out")


@pytest.fixture(scope="module")
def _module_epoch() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dspt.audit.prompts.EPOCHS", 1)
        yield


def test_planted_labels_are_found_and_corrected(report: AuditReport) -> None:
    found = {f.image: CLASSES[f.proposed] for f in report.suspects if f.confidence > 0.7}
    assert found == WRONG
    assert [f.image for f in report.findings[:3]] == [f.image for f in report.suspects[:3]]
    assert report.record.informed
    assert report.record.quality is None  # nobody knows the truth of own data


def test_table_record_and_page_agree(report: AuditReport) -> None:
    rows = rows_of(report.folder / "audit.csv")
    record = AuditRecord.model_validate_json((report.folder / "audit.json").read_text())
    assert record == report.record
    assert [int(row["rank"]) for row in rows] == list(range(1, 3 * N + 1))
    doubts = [float(row["doubt"]) for row in rows]
    suspicions = [float(row["suspicion"]) for row in rows]
    assert suspicions == sorted(suspicions, reverse=True)
    assert {row["split"] for row in rows} == {"train"}
    assert set(EVIDENCE) < set(rows[0])
    suspects = [row for row in rows if row["given_label"] != row["proposed_label"]]
    assert len(suspects) == record.n_suspects
    assert sum(doubts) == pytest.approx(record.noise_rate * record.n)
    for found in record.classes:
        of_class = [row for row in rows if row["given_label"] == found.name]
        assert found.n == len(of_class) == N
        assert found.suspects == sum(row in suspects for row in of_class)
        assert found.expected_wrong == pytest.approx(sum(float(r["doubt"]) for r in of_class))
    html = (report.folder / "audit.html").read_text(encoding="utf-8")
    places = [html.index(row["image"]) for row in suspects]
    assert places == sorted(places)
    for row in rows[len(suspects) :]:
        assert row["image"] not in html
    again = read_report(report.folder)
    assert again.findings == report.findings


def test_two_audits_are_the_same_byte_for_byte(
    report: AuditReport, planted: Path, model: str, tmp_path: Path
) -> None:
    again = audited(planted, model, tmp_path / "out")
    for name in ("audit.csv", "audit.html"):
        assert (again.folder / name).read_bytes() == (report.folder / name).read_bytes()


def test_a_finished_audit_is_shown_again_and_another_one_refused(
    report: AuditReport, planted: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(report.folder)
    monkeypatch.setattr("dspt.audit.job.audit_labels", None)  # nothing is computed
    again = audited(planted, model, report.folder)
    assert again.record == report.record
    assert files_of(report.folder) == before
    with pytest.raises(UserError, match=r"other settings \(seed: 1 there, 2 here"):
        audited(planted, model, report.folder, seed=2)
    assert files_of(report.folder) == before


def test_what_has_changed_since_is_refused(
    report: AuditReport, planted: Path, model: str, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(planted, tmp_path / "colours"))
    held = shutil.copytree(report.folder, tmp_path / "out")
    text = (held / "audit.json").read_text().replace(json.dumps(str(planted)), f'"{data}"')
    (held / "audit.json").write_text(text)
    audited(data, model, held)
    (data / "red" / "999.png").write_bytes(encoded(draw("red", 999)))
    with pytest.raises(UserError, match="the data has changed"):
        audited(data, model, held)
    again = audit(data_settings(str(data), backbone=model), out=held, overwrite=True, device="cpu")
    assert again.record.n == 3 * N + 1


def test_an_interrupted_audit_leaves_no_half_and_goes_on(
    report: AuditReport, planted: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dspt.audit.job.render_audit", stopped)
        with pytest.raises(KeyboardInterrupt):
            audited(planted, model, tmp_path / "out")
    assert list(files_of(tmp_path / "out")) == [CHECKPOINT_FILE]
    with monkeypatch.context() as patch:
        patch.setattr("dspt.audit.job.write_findings", stopped)
        with pytest.raises(KeyboardInterrupt):
            audited(planted, model, tmp_path / "out")
    audited(planted, model, tmp_path / "out")
    table = (tmp_path / "out" / "audit.csv").read_bytes()
    assert table == (report.folder / "audit.csv").read_bytes()
    assert set(files_of(tmp_path / "out")) == set(files_of(report.folder))


def test_prompts_that_were_interrupted_train_on(
    planted: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspt.audit.prompts.EPOCHS", 4)
    whole = audited(planted, model, tmp_path / "whole")
    out = tmp_path / "out"
    saved: list[int] = []
    stop_after = 2

    def saving(path: Path, state: TrainingState, identity: str) -> None:
        save_checkpoint(path, state, identity)
        saved.append(state.epoch)
        if state.epoch == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr("dspt.audit.prompts.save_checkpoint", saving)
    with pytest.raises(KeyboardInterrupt):
        audited(planted, model, out)
    assert list(files_of(out)) == [CHECKPOINT_FILE]
    stop_after = -1
    again = audited(planted, model, out)
    assert saved == [0, 1, 2, 3, 4], "every epoch once"
    assert again.findings == whole.findings
    for name in ("audit.csv", "audit.html"):
        assert (out / name).read_bytes() == (whole.folder / name).read_bytes()
    assert set(files_of(out)) == set(files_of(whole.folder))


@pytest.mark.parametrize("other", ["seed", "labels", "overwrite"])
def test_a_checkpoint_of_another_audit_is_not_gone_on_with(
    planted: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    data, out = Path(shutil.copytree(planted, tmp_path / "colours")), tmp_path / "out"

    def stopped(*args: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dspt.audit.job.render_audit", stopped)
        with pytest.raises(KeyboardInterrupt):
            audited(data, model, out)
    seed = 2 if other == "seed" else 1
    if other == "labels":
        (data / "red" / "000.png").rename(data / "blue" / "900.png")
    epochs: list[int] = []
    monkeypatch.setattr(
        "dspt.audit.prompts.save_checkpoint",
        lambda path, state, identity: epochs.append(state.epoch),
    )
    settings = data_settings(str(data), backbone=model, seed=seed)
    audit(settings, out=out, device="cpu", overwrite=other == "overwrite")
    assert epochs == [0, 1], "trained from the start"
    assert not (out / CHECKPOINT_FILE).exists()


def test_what_a_kill_left_beside_a_finished_audit_is_removed(
    report: AuditReport, planted: Path, model: str, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(report.folder, tmp_path / "out"))
    (out / CHECKPOINT_FILE).write_bytes(b"left")
    audited(planted, model, out)
    assert files_of(out) == files_of(report.folder)


def test_unreadable_pictures_are_named_counted_and_left_out(
    planted: Path, model: str, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(planted, tmp_path / "colours"))
    (data / "red" / "002.png").write_bytes(b"no picture")
    record = audited(data, model, tmp_path / "out").record
    assert record.n == 3 * N - 1
    (reason,) = record.unreadable
    assert "red/002.png" in reason
    assert any("1 training pictures could not be read" in text for text in record.warnings)


def test_splits_are_audited_as_asked(planted: Path, model: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "test"):
        shutil.copytree(planted, data / split)
    for split, n in (("train", 3 * N), ("test", 3 * N), ("all", 6 * N)):
        rows = rows_of(audited(data, model, tmp_path / split, split=split).folder / "audit.csv")
        assert len(rows) == n
        assert all(row["image"].startswith(row["split"] + "/") for row in rows)
        assert {row["split"] for row in rows} == ({"train", "test"} if n == 6 * N else {split})
    with pytest.raises(UserError, match="has no 'val'; it has train, test"):
        audited(data, model, tmp_path / "val", split="val")


def test_noise_made_on_purpose_is_measured(planted: Path, model: str, tmp_path: Path) -> None:
    report = audited(planted, model, tmp_path / "out", noise="symmetric:0.5", shots=6)
    rows = rows_of(report.folder / "audit.csv")
    quality = report.record.quality
    assert quality is not None
    wrong = [row["given_label"] != row["true_label"] for row in rows]
    assert len(rows) == 18
    assert quality.n_wrong == sum(wrong) > 0
    assert quality.noise_rate == sum(wrong) / 18
    assert set(quality.evidence) == set(EVIDENCE)
    first = quality.evidence["doubt"].precision_at_true_rate
    assert first == pytest.approx(sum(wrong[: sum(wrong)]) / sum(wrong))
    html = (report.folder / "audit.html").read_text(encoding="utf-8")
    assert f"{quality.n_wrong} of 18" in html


@pytest.mark.parametrize("classes", [("blue", "red"), ("blue", "green", "red", "rare")])
def test_two_classes_and_a_class_of_one_picture(
    classes: tuple[str, ...], model: str, tmp_path: Path
) -> None:
    data = write_planted(tmp_path / "colours", {}, [c for c in classes if c != "rare"])
    if "rare" in classes:
        (data / "yellow").mkdir()
        (data / "yellow" / "0.png").write_bytes(encoded(draw("yellow", 1)))
    record = audited(data, model, tmp_path / "out").record
    assert [found.n for found in record.classes][:2] == [N, N]
    assert record.n == sum(found.n for found in record.classes)
    # All labels are right: next to nothing is accused.
    assert record.n_suspects <= 1
    assert record.noise_rate < 0.1


def test_hostile_names_stay_names(model: str, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    lines = ["image,label"]
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        name = f'pictures/"a",{number}<b>&.png'
        (tmp_path / name).write_bytes(encoded(draw("red" if number % 2 else "blue", number)))
        label = "red" if number % 2 else hostile
        lines.append(f'"{name.replace(chr(34), chr(34) * 2)}","{label if number != 2 else "red"}"')
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    report = audited(tmp_path / "list.csv", model, tmp_path / "out")
    rows = rows_of(report.folder / "audit.csv")
    assert {row["image"] for row in rows} == {f'pictures/"a",{i}<b>&.png' for i in range(12)}
    assert {row["given_label"] for row in rows} == {hostile, "red"}
    html = (report.folder / "audit.html").read_text(encoding="utf-8")
    assert hostile not in html
    assert "<b>&" not in html


def test_too_few_pictures_are_refused_and_leave_nothing(model: str, tmp_path: Path) -> None:
    data = write_planted(tmp_path / "colours", {}, ("blue", "red"))
    with pytest.raises(UserError, match="2 pictures are too few"):
        audited(data, model, tmp_path / "out", shots=1)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def run(planted: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit-run")
    data = Path(shutil.copytree(planted, folder / "colours"))
    fit(
        data,
        model,
        device="cpu",
        out=folder / "run",
        shots=4,
        noise="symmetric:0.5",
        seed=3,
        recipe={"epochs": 1},
        views=1,
    )
    return folder / "run"


def test_a_run_is_audited_with_the_labels_it_saw(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded_pictures = count_encoded(monkeypatch)
    assert is_run(str(run))
    report = audit(run_settings(run), run=run, device="cpu")
    assert report.folder == run / "audit"
    assert report.record.settings.seed == 3
    rows = rows_of(report.folder / "audit.csv")
    saw = [row for row in rows_of(run / "labels.csv") if row["split"] == "train"]
    assert {(r["image"], r["given_label"], r["true_label"]) for r in rows} == {
        (r["image"], r["given_label"], r["true_label"]) for r in saw
    }
    assert len(rows) == len(saw) == 12
    assert report.record.quality is not None
    assert encoded_pictures() <= 12  # no test picture, no augmented view


def test_a_run_of_other_data_or_pictures_is_refused(run: Path, tmp_path: Path) -> None:
    data = run.parent / "colours"
    drawn = next(row for row in rows_of(run / "labels.csv") if row["split"] == "train")
    picture = data / drawn["image"]
    kept = picture.read_bytes()
    try:
        picture.write_bytes(b"broken")
        with pytest.raises(UserError, match=r"labels are not those in .*labels\.csv"):
            audit(run_settings(run), run=run, out=tmp_path / "out", device="cpu")
        picture.unlink()
        with pytest.raises(UserError, match=r"the data has changed .* since the run in"):
            audit(run_settings(run), run=run, out=tmp_path / "out", device="cpu")
    finally:
        picture.write_bytes(kept)


def test_a_run_of_other_weights_is_refused(
    run: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_model(tmp_path / "model", seed=5)
    text = (run / "result.json").read_text()
    moved = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("audit")))
    (moved / "result.json").write_text(text.replace(json.dumps(model), json.dumps(other)))
    with pytest.raises(UserError, match="the backbone has changed"):
        audit(run_settings(moved), run=moved, device="cpu")
    assert not (moved / "audit").exists()


def test_an_unfinished_run_is_not_taken_for_data(run: Path, tmp_path: Path) -> None:
    half = Path(shutil.copytree(run, tmp_path / "half"))
    (half / "result.json").unlink()
    with pytest.raises(UserError, match="not finished"):
        is_run(str(half))


@pytest.mark.parametrize("damage", ["", "{}", '{"schema_version": 9}'])
def test_a_damaged_audit_is_told(
    report: AuditReport, planted: Path, model: str, tmp_path: Path, damage: str
) -> None:
    held = shutil.copytree(report.folder, tmp_path / "out")
    (held / "audit.json").write_text(damage)
    with pytest.raises(UserError, match="--overwrite"):
        audited(planted, model, held)
