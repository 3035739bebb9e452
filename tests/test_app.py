"""The pages' logic, without a browser."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from tests.conftest import ROOT, draw_head
from tumorlens.app import words
from tumorlens.app.learn import simulate
from tumorlens.app.parts import MODELS_VARIABLE, model_key, models
from tumorlens.app.results import RUNS_VARIABLE, find_runs
from tumorlens.app.view import _verdict, own_kind
from tumorlens.data.readers import read_slices
from tumorlens.evaluate.evaluation import evaluate_run
from tumorlens.evaluate.mistakes import PICTURES, picture_name
from tumorlens.examples import EXAMPLES
from tumorlens.pipeline import REFERENCE
from tumorlens.records import CLASS_TITLES, CLASSES, Prediction
from tumorlens.runtime.predictor import Predictor


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_file(str(ROOT / "app.py"), default_timeout=90).run()


def opened(name: str) -> AppTest:
    """One of the other pages."""
    script = f"from tumorlens.app.{name} import page\npage()"
    return AppTest.from_string(script, default_timeout=120).run()


def html(page: AppTest) -> str:
    return " ".join(str(part.proto.body) for part in page.get("html"))


def test_the_first_example_is_answered_at_once(page: AppTest) -> None:
    assert not page.exception
    assert html(page).count("medical device") == 1  # always in sight, once
    assert any(title in html(page) for title in CLASS_TITLES.values())
    assert "Synthetic" in page.info[0].value
    assert page.selectbox[0].options == list(CLASS_TITLES.values())


def test_every_example_can_be_chosen(page: AppTest) -> None:
    found = set()
    for example in EXAMPLES:
        page.button(key=f"example_{example.key}").click().run()
        assert not page.exception and not page.error
        found.add("refused" if page.warning else "answered")
        assert example.title in html(page) or page.warning
    assert found == {"answered", "refused"}
    assert len(EXAMPLES) >= 6


def test_a_volume_shows_its_strongest_slice_and_a_profile(page: AppTest) -> None:
    page.button(key="example_lesion_volume").click().run()
    slider = next(item for item in page.slider if item.label == "Slice")
    assert 13 <= slider.value <= 18  # the drawn lesion lies there
    found = page.session_state["profile"][1]
    assert found.places == tuple(range(24)) and len(found.answers) == 24
    assert "Glioma" in html(page)
    slider.set_value(2).run()
    assert "slice 2 of 24" in html(page)


def test_any_class_contrast_opacity_and_way_of_drawing(page: AppTest) -> None:
    page.selectbox[0].select("pituitary").run()
    page.selectbox[1].select("glioma").run()
    for drawn in ("contour", "compare", "colour"):
        page.session_state["drawn"] = drawn
        page.run()
        assert not page.exception and not page.error


def test_every_map_can_be_shown(page: AppTest) -> None:
    page.button(key="example_sellar_mass").click().run()
    for way in ("sharp", "region", "gradcam"):
        page.session_state["way"] = way
        page.run()
        assert not page.exception
        assert not page.error


def test_bundles_of_one_graph_are_told_apart() -> None:
    first = Predictor(REFERENCE)
    other = Predictor(REFERENCE)
    other.card = first.card.model_copy(update={"temperature": 2.0})
    assert model_key(first) != model_key(other)


def test_figures_say_whose_they_are() -> None:
    """The last model learned from nearly everybody: what its page shows was measured on others of its recipe."""
    card = Predictor(REFERENCE).card
    said = Prediction("a.png", 0, "ok", card.classes, (0.97, 0.01, 0.01, 0.01))
    assert "the models of its cross-validation said" in own_kind(card.metrics, said)
    assert "patient groups, none of them seen in training" in own_kind(card.metrics, said)


def test_what_does_not_count_rules_nothing_out() -> None:
    predictor = Predictor(REFERENCE)
    (picture,) = read_slices(next(item for item in EXAMPLES if item.key == "ring_lesion").path)
    (answer,) = predictor.predict([picture])
    assert answer.prediction.doubt and words.RULED_OUT not in _verdict(answer.prediction)


def test_a_folder_is_answered_filtered_and_opened() -> None:
    page = opened("folder")
    page.button(key="try").click().run()
    assert not page.exception
    rows = page.session_state["rows"]
    assert len(rows) == sum(1 for item in EXAMPLES if item.path.suffix == ".png") + 24
    assert f"{len(rows)} slices" in page.markdown[0].value
    assert len(page.dataframe[0].value) == len(rows)
    page.session_state["verdicts"] = ["refused"]
    page.run()
    verdicts = set(page.dataframe[0].value["Verdict"])
    assert verdicts == {"refused"}
    assert not page.exception


def test_the_same_file_is_one_row_and_a_bad_one_has_its_reason() -> None:
    script = """
import streamlit as st
from tumorlens.app import folder, parts
from tumorlens.examples import EXAMPLES
rows = st.session_state.setdefault("kept", {})
data = next(item for item in EXAMPLES if item.key == "sellar_mass").path.read_bytes()
files = [("a.png", data), ("a.png", data), ("words.png", b"no picture")]
folder._answer(files, rows, parts.choose_predictor())
"""
    page = AppTest.from_string(script, default_timeout=90).run()
    assert not page.exception
    rows = list(page.session_state["kept"].values())
    assert sorted(row.answer.prediction.status for row in rows) == ["error", "ok"]
    opened_row = next(row for row in rows if row.png).opened()
    assert opened_row.overlay().size == (384, 384)


def test_folders_that_are_classes_give_labels() -> None:
    script = """
import streamlit as st
from tumorlens.app import folder, parts
from tumorlens.examples import EXAMPLES
predictor = parts.choose_predictor()
rows = st.session_state.setdefault("kept", {})
data = {item.key: item.path.read_bytes() for item in EXAMPLES}
files = [("set/pituitary_tumor/a.png", data["sellar_mass"]), ("set/notumor/b.png", data["healthy_axial"]),
         ("set/glioma/c.png", data["healthy_coronal"]), ("elsewhere/d.png", data["healthy_axial"])]
folder._answer(files, rows, predictor)
folder._labelled(list(rows.values()), predictor.classes)
"""
    page = AppTest.from_string(script, default_timeout=90).run()
    assert not page.exception
    assert "**2 of 3** answered right" in page.markdown[0].value
    table = page.dataframe[0].value
    assert list(table.iloc[:, 0]) == ["Glioma", "No tumour", "Pituitary tumour"]
    assert table["No tumour"].tolist() == [1, 1, 0]


def test_a_volume_is_cut_in_any_plane(page: AppTest) -> None:
    page.button(key="example_lesion_volume").click().run()
    page.session_state["plane"] = "coronal"
    page.run()
    assert not page.exception and not page.error
    assert "of 24" not in html(page) and "coronal" in html(page)


def test_grey_values_may_go_through_the_headers_window() -> None:
    script = """
import streamlit as st
from tumorlens.app.study import _cut
st.write(str([_cut(*kinds) for kinds in ((False, False), (False, True), (True, False))]))
"""
    page = AppTest.from_string(script, default_timeout=30).run()
    assert len(page.toggle) == 1 and page.markdown[0].value.count("window=False") == 3
    page.toggle[0].set_value(True).run()
    assert page.markdown[0].value.count("window=True") == 1


def test_a_cell_shows_its_slices_where_the_images_are(tiny_run: Path) -> None:
    script = f"""
from pathlib import Path
from tumorlens.app.results import _pictures
from tumorlens.data.predictions import read_predictions
run = Path({str(tiny_run)!r})
names = [item.source for item in read_predictions(run / "predictions.csv")][:5]
_pictures([*names, "gone.png"], run)
_pictures(names, None)
"""
    page = AppTest.from_string(script, default_timeout=30).run()
    assert not page.exception
    assert len(page.get("image")) == 5


def test_slices_of_one_file_are_shown_each_for_itself(tmp_path: Path) -> None:
    pages = [Image.fromarray(draw_head("glioma", patient, 1)) for patient in range(3)]
    pages[0].save(tmp_path / "three.tif", save_all=True, append_images=pages[1:])
    rows = [f"three.tif,glioma,,,made,,{n},64,64,,,{n}" for n in range(3)]
    head = "path,label,patient_id,patient_group,source,mask,sha256,width,height,split,fold,frame"
    (tmp_path / "manifest.csv").write_text("\n".join([head, *rows]))
    script = f"""
from pathlib import Path
from tumorlens.app import results
results.find_manifest = lambda folder: folder / "manifest.csv"
results._pictures(["three.tif", "three.tif [2]"], Path({str(tmp_path)!r}))
"""
    page = AppTest.from_string(script, default_timeout=30).run()
    assert not page.exception
    shown = [item.proto.imgs[0] for item in page.get("image")]
    assert [item.caption for item in shown] == [r"three\.tif", r"three\.tif \[2\]"]
    assert shown[0].url != shown[1].url


def test_results_show_tables_and_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert {"docs/results/reference/fold0", "docs/results/best"} <= find_runs().keys()
    monkeypatch.setenv(RUNS_VARIABLE, "docs/results/best/fold2:docs/results/without_region/fold2")
    page = opened("results")
    assert not page.exception
    assert len(page.metric) == 4 and float(page.metric[0].value) > 0.5
    assert len(page.dataframe) > 4
    names = page.selectbox[0].options
    assert len(names) == 2
    page.selectbox[1].select(names[1]).run()
    assert not page.exception and not page.error
    assert "McNemar" in str([item.value for item in page.caption])


def test_a_run_without_its_images_shows_the_mistakes_that_it_kept(tmp_path: Path) -> None:
    run = Path(shutil.copytree(ROOT / "docs/results/best/fold2", tmp_path / "run"))
    first = evaluate_run(run).mistakes[0].prediction
    (run / PICTURES).mkdir()
    Image.new("L", (64, 32), 90).save(run / PICTURES / picture_name(first))
    script = f"""
from pathlib import Path
from tumorlens.app.results import _kept_mistakes
from tumorlens.evaluate.evaluation import evaluate_run
found = evaluate_run(Path({str(run)!r}))
_kept_mistakes(found, {first.label!r}, {first.predicted!r})
_kept_mistakes(found, {first.label!r}, {first.label!r})
"""
    page = AppTest.from_string(script, default_timeout=60).run()
    assert not page.exception
    assert len(page.get("image")) == 1


def test_learning_follows_a_picture_and_a_split() -> None:
    page = opened("learn")
    assert not page.exception
    assert len(page.get("image")) >= 8
    alone, alike = simulate(0.0), simulate(0.9)
    assert alike[0] > 0.9 and alike[1] < 0.8  # recognising patients looks like knowing classes
    assert abs(alone[0] - alone[1]) < 0.15


def test_figures_of_this_very_kind_of_answer() -> None:
    right = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 12, "n_slices": 40}
    bands = [{"low": 0.5, "high": 0.8, "right": None}, {"low": 0.8, "high": 1.0, "right": right}]
    metrics = {"by_confidence": {"glioma": bands}}
    sure = Prediction("x", 0, "ok", CLASSES, (0.9, 0.05, 0.03, 0.02))
    assert "0.90 (0.80 to 0.95)** of 40 slices of 12 patient groups" in own_kind(metrics, sure)
    unsure = Prediction("x", 0, "ok", CLASSES, (0.6, 0.2, 0.1, 0.1))
    assert "too few" in own_kind(metrics, unsure)
    assert own_kind(metrics, Prediction("x", 0, "ok", CLASSES, (0.1, 0.9, 0.0, 0.0))) == ""
    few = {**right, "low": None, "high": None}  # the same in every draw of patients, as of one alone
    assert "right in **0.90** of 40" in own_kind({"by_confidence": {"glioma": [{**bands[1], "right": few}]}}, sure)


def test_names_that_are_not_ours_are_shown_as_they_are() -> None:
    hostile = "![x](https://evil.example/x.png) :red[fake] $a$ <img src=x> www.evil.example"
    page = AppTest.from_string(
        f"from tumorlens.app.parts import problems_told\nproblems_told([{hostile!r}])", default_timeout=30
    ).run()
    shown = page.error[0].value
    for mark in ("![", "](", ":red", "$a", "<img", "www.evil"):
        assert not re.search(rf"(?<!\\){re.escape(mark)}", shown)
    assert "".join(shown.split("\\")) == hostile


def test_a_model_keeps_its_own_answers(page: AppTest, monkeypatch: pytest.MonkeyPatch, tiny_run: Path) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tiny_run / "bundle"))
    page.run()
    page.button(key="example_lesion_volume").click().run()
    first = page.session_state["profile"][0]
    page.selectbox(key="model").select("tiny/bundle").run()
    assert not page.exception
    assert page.session_state["profile"][0] != first


def test_what_was_left_out_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Upload:
        file_id, name = "k", "bad.png"

        def getvalue(self) -> bytes:
            return b"no picture"

    monkeypatch.setattr("streamlit.file_uploader", lambda *given, **more: [Upload()])
    script = "from tumorlens.app import study\nassert study._choose() is None"
    page = AppTest.from_string(script, default_timeout=30).run()
    for _ in range(2):
        assert not page.exception
        assert "not a picture" in page.error[0].value
        page.run()


def test_models_are_chosen_among_those_that_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert models() == {"reference": REFERENCE}
    other = tmp_path / "mine"
    other.mkdir()
    (other / "model.json").write_text("{}")
    monkeypatch.setenv(MODELS_VARIABLE, f"{other}:{tmp_path / 'missing'}")
    assert list(models()) == ["reference", "mine"]
    runs = [tmp_path / name / "bundle" for name in ("a", "b")]
    for run in runs:
        run.mkdir(parents=True)
        (run / "model.json").write_text("{}")
    monkeypatch.setenv(MODELS_VARIABLE, ":".join(map(str, runs)))
    assert list(models()) == ["reference", "a/bundle", "b/bundle"]


def test_kinds_of_uploads_are_known_by_content() -> None:
    """DICOM files often have no ending, and a ZIP may hold a volume."""
    script = """
import io, zipfile
from types import SimpleNamespace
import streamlit as st
from tumorlens.app import study
from tumorlens.examples import EXAMPLES
volume = next(item.path for item in EXAMPLES if item.key == "lesion_volume")
packed = io.BytesIO()
with zipfile.ZipFile(packed, "w") as archive:
    archive.write(volume, "case/scan.nii.gz")
    archive.writestr("case/notes.txt", "none")
files = {"picture.dat": EXAMPLES[0].path.read_bytes(), "IM1": bytes(128) + b"DICM", "case.zip": packed.getvalue(),
         "empty": b""}
uploads = [SimpleNamespace(name=name, file_id=name, getvalue=lambda data=data: data) for name, data in files.items()]
st.write(str([study._kinds([item]) for item in uploads] + [study._kinds(uploads)]))
"""
    page = AppTest.from_string(script, default_timeout=60).run()
    assert not page.exception
    expected = [(False, False), (False, True), (True, False), (False, False), (True, True)]
    assert page.markdown[0].value == str(expected)


def test_nothing_of_an_upload_is_kept_where_its_reader_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    from tumorlens.app import folder
    from tumorlens.data.readers import nifti

    class LeftError(BaseException):
        """As Streamlit stops a script whose page was closed."""

    def leave(*_: object) -> None:
        raise LeftError

    volume = next(item.path for item in EXAMPLES if item.key == "lesion_volume")
    monkeypatch.setattr(folder, "_answer_waiting", leave)
    with pytest.raises(LeftError):
        folder._answer([("jane_doe.nii.gz", volume.read_bytes())], {}, Predictor(REFERENCE))
    assert not nifti._RECENT._volumes


def test_every_bad_file_of_a_name_has_its_row() -> None:
    from tumorlens.app import folder

    rows: dict[str, folder.Row] = {}
    for drop in ([("IM1", b"words"), ("IM1", b"")], [("IM1", b"more words")]):
        folder._answer(drop, rows, Predictor(REFERENCE))
    assert [row.answer.prediction.source for row in rows.values()] == ["IM1", "IM1 (2)", "IM1"]
    assert "empty" in list(rows.values())[1].answer.prediction.message


def test_figures_are_counted_again_when_a_fold_comes_goes_or_is_replaced(tmp_path: Path) -> None:
    import os

    from tumorlens.app.results import _stamp

    for fold in range(2):
        (tmp_path / f"fold{fold}").mkdir()
        (tmp_path / f"fold{fold}" / "predictions.csv").write_text("a")
    found = [_stamp(tmp_path)]
    (tmp_path / "fold0" / "predictions.csv").write_text("other")
    os.utime(tmp_path / "fold0" / "predictions.csv", (1, 1))  # copied with its time
    found.append(_stamp(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    found.append(_stamp(tmp_path))
    shutil.rmtree(tmp_path / "fold1")
    found.append(_stamp(tmp_path))
    assert len(set(found)) == 4
