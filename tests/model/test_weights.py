"""Weights from a file and from a hub: a real HTTP server on this machine plays the hub."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from safetensors.torch import save_file  # noqa: E402

from tests.conftest import TINY  # noqa: E402
from tumorlens.errors import TumorlensError  # noqa: E402
from tumorlens.model.network import TumorNet  # noqa: E402
from tumorlens.model.weights import IMAGENET, HubWeights, download, load_backbone  # noqa: E402

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
    with pytest.raises(TumorlensError, match="not a safetensors file"):
        load_backbone(network, tmp_path / "text")
    with pytest.raises(TumorlensError, match="does not fit ResNet-50"):
        load_backbone(TumorNet(4, layers=(2, 1, 1, 1)), checkpoint)
