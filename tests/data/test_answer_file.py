"""Tables that grow while answers come: formats, and what is left after a stop at any byte."""

import json
from pathlib import Path

import pytest

from tumorlens.data.answer_file import AnswerFile, is_unfinished
from tumorlens.data.predictions import read_predictions
from tumorlens.errors import RunError
from tumorlens.records import CLASSES, Prediction

PLAN = {"model": "abc", "every": 1}


def answers() -> list[Prediction]:
    """Two pictures, a volume of three slices, a bad file with a name that needs quotes, a refusal."""
    shares = (0.1, 0.2, 0.3, 0.4)
    made = [Prediction(f"pics/{n}.png", 0, "ok", CLASSES, shares, ("pituitary",), map=f"{n}") for n in range(2)]
    made += [Prediction("volume.nii", frame, "ok", CLASSES, shares, ("pituitary",)) for frame in (3, 4, 5)]
    made.append(Prediction('odd, "näme"\nöf.png', 0, "error", CLASSES, message="not a picture, it says"))
    made.append(Prediction("no utf-8 \udce9.png", 0, "ok", CLASSES, shares, ("pituitary",)))
    made.append(Prediction("x.png", 0, "refused", CLASSES, message="no brain"))
    return made


def write_all(path: Path, resume: bool = False) -> None:
    with AnswerFile(path, CLASSES, PLAN, resume) as table:
        for item in answers():
            if not table.is_done(item.source):
                table.write([item])


def content(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return parquet.read_table(path).to_pylist()
    return [{"input": item.source, "frame": item.frame, "status": item.status} for item in read_predictions(path)]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_format_holds_every_row(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers.{suffix}"
    write_all(path)
    rows = content(path)
    assert [(row["input"], row["frame"], row["status"]) for row in rows] == [
        (item.source.replace("\udce9", "\udce9" if suffix == "jsonl" else r"\udce9"), item.frame, item.status)
        for item in answers()
    ]
    if suffix != "csv":
        assert rows[0]["p_pituitary"] == pytest.approx(0.4)
        assert (rows[1]["map"], rows[2]["map"]) == ("1", None)
        assert rows[5]["p_glioma"] is None and rows[5]["message"] == "not a picture, it says"
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert not is_unfinished(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_cut_off_at_any_byte_it_resumes_without_a_row_lost_or_doubled(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    write_all(whole)
    begun = tmp_path / f"answers.{suffix}"
    rows = begun.with_name(f"{begun.name}.rows.csv") if suffix == "parquet" else begun
    if suffix == "parquet":  # its rows are those of the CSV table
        write_all(tmp_path / "whole.csv")
    bytes_ = (tmp_path / "whole.csv" if suffix == "parquet" else whole).read_bytes()
    state = begun.with_name(f"{begun.name}.unfinished.json")
    for size in range(0, len(bytes_) + 1, 7):
        rows.write_bytes(bytes_[:size])
        state.write_text(json.dumps(PLAN))
        write_all(begun, resume=True)
        assert content(begun) == content(whole), size
        begun.unlink()


def test_a_table_of_another_plan_is_not_mixed_with(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    with pytest.raises(KeyboardInterrupt), AnswerFile(path, CLASSES, PLAN) as table:
        table.write(answers()[:2])
        raise KeyboardInterrupt
    assert is_unfinished(path)
    with pytest.raises(RunError, match=r"begun with every 1, now 2\. Resume it with the same"):
        AnswerFile(path, CLASSES, PLAN | {"every": 2}, resume=True)
    path.with_name("answers.csv.unfinished.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        AnswerFile(path, CLASSES, PLAN, resume=True)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_with_the_columns_of_another_version_are_kept_as_they_are(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers.{suffix}"
    with pytest.raises(KeyboardInterrupt), AnswerFile(path, CLASSES, PLAN) as table:
        table.write(answers())
        raise KeyboardInterrupt
    rows = path if suffix == "csv" else path.with_name(f"{path.name}.rows.csv")
    before = "\n".join(line.rpartition(",")[0] for line in rows.read_text().splitlines())
    rows.write_text(before)
    with pytest.raises(RunError, match="begun by another version of tumorlens, with other columns"):
        AnswerFile(path, CLASSES, PLAN, resume=True)
    assert rows.read_text() == before


def test_a_format_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"\.csv, \.jsonl, \.parquet"):
        AnswerFile(tmp_path / "answers.xlsx", CLASSES, PLAN)
