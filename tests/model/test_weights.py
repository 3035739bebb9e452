"""Weights from a file, a former run and a hub: a real HTTP server on this machine plays the hub."""

import hashlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from safetensors.torch import save_file  # noqa: E402

from tests.conftest import TINY  # noqa: E402
from tumorlens.config import Architecture, PreprocessSettings  # noqa: E402
from tumorlens.data.predictions import write_predictions  # noqa: E402
from tumorlens.errors import BundleError, RunError, TumorlensError  # noqa: E402
from tumorlens.model.bundle import CARD, WEIGHTS, Card, write_card  # noqa: E402
from tumorlens.model.network import TumorNet  # noqa: E402
from tumorlens.model.weights import (  # noqa: E402
    IMAGENET,
    HubWeights,
    download,
    load_backbone,
    resolve,
    stride_layout,
    trained_patients,
)
from tumorlens.records import CLASSES, Prediction  # noqa: E402

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    network = TumorNet(4, layers=TINY)
    path = tmp_path / "source.safetensors"
    save_file(
        {**network.body.state_dict(), "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)},
        path,
    )
    return path


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[tuple[str, str]]:
    data = checkpoint.read_bytes()
    digest = hashlib.sha256(data).hexdigest()

    class Hub(BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            if self.path != f"/lab/net/resolve/{REVISION}/model.safetensors":
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield digest, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_pinned_revision_is_downloaded_and_loads(hub: tuple[str, str], tmp_path: Path, checkpoint: Path) -> None:
    path = download(HubWeights("lab/net", REVISION, hub[0]), tmp_path / "cache", hub[1])
    assert path.read_bytes() == checkpoint.read_bytes()
    network = TumorNet(4, layers=TINY)
    before = network.body.conv1.weight.clone()
    load_backbone(network, path)
    assert not torch.equal(before, network.body.conv1.weight)


def test_a_changed_file_is_refused(hub: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(TumorlensError, match="SHA-256 is"):
        download(HubWeights("lab/net", REVISION, "0" * 64), tmp_path / "cache", hub[1])


def test_a_missing_file_on_the_hub(hub: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(TumorlensError, match="cannot be downloaded"):
        download(HubWeights("lab/net", "f" * 40, hub[0]), tmp_path / "cache", hub[1])


def test_a_connection_that_breaks_is_a_sentence(
    hub: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's transport raises errors of its own, of another package in another version."""

    class RemoteProtocolError(Exception): ...

    def broken(*given: object, **more: object) -> str:
        raise RemoteProtocolError("peer closed connection without sending complete message body")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", broken)
    with pytest.raises(TumorlensError, match=r"cannot be downloaded \(RemoteProtocolError: peer.*--weights FILE"):
        download(HubWeights("lab/net", REVISION, hub[0]), tmp_path / "cache", hub[1])


def test_the_default_is_pinned() -> None:
    assert len(IMAGENET.revision) == 40
    assert len(IMAGENET.sha256) == 64


def test_training_can_go_on_from_a_bundle(tmp_path: Path) -> None:
    trained = TumorNet(4, layers=TINY)
    torch.nn.init.normal_(trained.head.bias)
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    network = TumorNet(4, layers=TINY)
    load_backbone(network, tmp_path / "weights.safetensors")
    for key, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)
    with pytest.raises(TumorlensError, match="class list than 3 classes"):
        load_backbone(TumorNet(3, layers=TINY), tmp_path / "weights.safetensors")


def test_wrong_files(tmp_path: Path, checkpoint: Path) -> None:
    network = TumorNet(4, layers=TINY)
    with pytest.raises(TumorlensError, match="no such weights file"):
        load_backbone(network, tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(TumorlensError, match="neither a safetensors nor a Keras file"):
        load_backbone(network, tmp_path / "text")
    with pytest.raises(TumorlensError, match="does not fit ResNet-50"):
        load_backbone(TumorNet(4, layers=(2, 1, 1, 1)), checkpoint)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a bundle whose strides are Keras', and predictions of patients on every side."""
    folder = tmp_path / "run"
    (folder / "bundle").mkdir(parents=True)
    save_file(TumorNet(len(CLASSES), layers=TINY).state_dict(), folder / "bundle" / WEIGHTS)
    write_card(
        folder / "bundle",
        Card(name="run", created="", tumorlens_version="0", classes=CLASSES, preprocess=PreprocessSettings(),
             network=Architecture(strides="v1")),
    )  # fmt: skip
    groups = [("a", "train"), ("a", "train"), ("similar:b", "train"), ("file:c.png", "val"), ("d", "test"), ("e", ""),
              ("", "train")]  # fmt: skip
    write_predictions(
        [Prediction("x.png", 0, "ok", CLASSES, (0.25,) * 4, patient_group=group, split=split)
         for group, split in groups],
        folder / "predictions.csv", CLASSES,
    )  # fmt: skip
    return folder


def test_the_sources_that_are_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("none") is None
    assert stride_layout(None) == "v1.5"
    with pytest.raises(TumorlensError, match="github") as caught:
        resolve("radimagenet")
    for said in (
        "https://github.com/BMEII-AI/RadImageNet",
        "--weights RadImageNet-ResNet50_notop.h5",
        "Keras .h5",
        "MIT licence",
    ):
        assert said in str(caught.value)
    monkeypatch.setattr("tumorlens.model.weights.download", lambda weights: tmp_path / weights.filename)
    assert resolve("hub") == tmp_path / "model.safetensors"
    assert resolve("./none") == Path("none")
    assert resolve(str(tmp_path / "a.keras")) == tmp_path / "a.keras"


def test_a_former_run_gives_its_model_and_its_layout(run: Path) -> None:
    weights = run / "bundle" / WEIGHTS
    assert resolve(str(run)) == resolve(str(run / "bundle")) == weights
    assert stride_layout(weights) == "v1"
    network = TumorNet(len(CLASSES), layers=TINY)
    load_backbone(network, weights)
    block = network.block("layer2[0]")
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))


def test_a_file_without_a_card_is_in_torchvisions_layout(checkpoint: Path) -> None:
    assert stride_layout(checkpoint) == "v1.5"
    network = TumorNet(4, layers=TINY)
    load_backbone(network, checkpoint)
    assert network.block("layer2[0]").conv2.stride == (2, 2)


def test_folders_without_a_model(run: Path, tmp_path: Path) -> None:
    (tmp_path / "unfinished" / "bundle").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "unfinished"):
        with pytest.raises(TumorlensError, match=f"no trained model in it .{CARD} is missing"):
            resolve(str(folder))
    with (run / "bundle" / WEIGHTS).open("ab") as file:
        file.write(b"0")
    with pytest.raises(BundleError, match="changed since the bundle was made"):
        resolve(str(run))
    (run / "bundle" / WEIGHTS).unlink()
    card = Card.model_validate_json((run / "bundle" / CARD).read_text())
    write_card(run / "bundle", card)
    with pytest.raises(BundleError, match=f"the bundle has no {WEIGHTS}"):
        resolve(str(run))


def test_the_patients_that_a_run_learned_from(run: Path, checkpoint: Path) -> None:
    learned = {"a", "similar:b", "file:c.png"}
    for named in (run, run / "bundle", run / "bundle" / WEIGHTS, resolve(str(run))):
        assert named is not None
        assert trained_patients(named) == learned
    shutil.copy(run / "predictions.csv", checkpoint.parent)
    assert trained_patients(checkpoint) == set()  # a bare file: the table beside it is not its own
    (run / "predictions.csv").write_text("nonsense\n")
    with pytest.raises(RunError, match="not a table of predictions"):
        trained_patients(run)
    (run / "predictions.csv").unlink()
    assert trained_patients(run / "bundle") == set()
