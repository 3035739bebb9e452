"""From files to labels, maps and overlays: tumorlens beside what a user would write instead, in one run.

    python benchmarks/speed.py PICTURES [--few 8] [--many 64] [--rounds 2] [--growth]
        [--out docs/results/speed.json] [--page docs/performance.md] [--figure docs/growth.svg]

Every peer is a process of its own that reads the same pictures and writes the same things for each: a label, the raw
map (.npy) and an overlay (.png). All compute the same network: ResNet-50 with a dilated last stage, 192 x 192, of
random weights where it is PyTorch's (speed does not depend on them). Peers take turns. A process is timed with few and
with many pictures: the difference gives pictures a second, what is left the start. One picture's latency is measured
inside a process that is warm. pytorch-grad-cam is not among the peers: it needs torchvision.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 192
BEGIN, END = "<!-- begin of what benchmarks/speed.py wrote -->", "<!-- end -->"
PEERS = ("tumorlens fp32", "tumorlens int8", "tumorlens onnxruntime", "PyTorch + torchcam", "PyTorch + captum")


def torch_peer(library: str) -> Callable[[Path], tuple[int, np.ndarray, Image.Image]]:
    """What a user of PyTorch writes: one picture at a time, forward, backward, map, overlay by a colour map."""
    import torch
    from matplotlib import colormaps
    from torch.nn.functional import interpolate

    from tumorlens.config import Architecture
    from tumorlens.model.network import TumorNet

    network = TumorNet(4, settings=Architecture(dilated=True)).eval()
    last = network.part("layer4")[-1]
    if library == "torchcam":
        from torchcam.methods import GradCAM

        extractor = GradCAM(network, last)
    else:
        from captum.attr import LayerGradCam

        extractor = LayerGradCam(network, last)

    def answer(path: Path) -> tuple[int, np.ndarray, Image.Image]:
        picture = Image.open(path).convert("L")
        square = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR), dtype=np.float32) / 255
        image = torch.from_numpy(square)[None, None]
        if library == "torchcam":
            scores = network(image)
            chosen = int(scores.argmax())
            small = extractor(chosen, scores)[0][None]
        else:
            with torch.no_grad():
                chosen = int(network(image).argmax())
            small = extractor.attribute(image, target=chosen, relu_attributions=True).detach()
        size = (picture.height, picture.width)
        values = interpolate(small.reshape(1, 1, *small.shape[-2:]), size, mode="bilinear")[0, 0].numpy()
        strength = values / max(float(values.max()), 1e-9)
        colours = Image.fromarray((colormaps["inferno"](strength)[..., :3] * 255).astype(np.uint8))
        return chosen, values, Image.blend(picture.convert("RGB"), colours, 0.5)

    return answer


def own_peer(precision: str) -> Callable[[Path], tuple[int, np.ndarray, Image.Image]]:
    from tumorlens.data.readers import read_slices
    from tumorlens.pipeline import REFERENCE, Explained
    from tumorlens.runtime.engine import cache_folder
    from tumorlens.runtime.predictor import Predictor

    engine = "onnxruntime" if precision == "onnxruntime" else "auto"
    predictor = Predictor(
        REFERENCE, answer_all=True, engine=engine, cache=cache_folder(),
        precision="fp32" if engine == "onnxruntime" else precision,
    )  # fmt: skip

    def answer(path: Path) -> tuple[int, np.ndarray, Image.Image]:
        (picture,) = read_slices(path)
        item = Explained(predictor.predict([picture])[0], picture)
        values = item.heatmap()
        return predictor.classes.index(item.answer.prediction.predicted), values, item.overlay()

    return answer


def work(peer: str, pictures: list[Path], out: Path) -> list[float]:
    """Answer pictures one by one, and how long each took in seconds."""
    library = peer.rpartition(" ")[2]
    answer = torch_peer(library) if peer.startswith("PyTorch") else own_peer(library)
    spent = []
    for path in pictures:
        began = time.perf_counter()
        label, values, overlay = answer(path)
        np.save(out / f"{path.stem}.npy", values)
        overlay.save(out / f"{path.stem}.png", compress_level=1)
        with (out / "labels.csv").open("a") as file:
            file.write(f"{path.name},{label}\n")
        spent.append(time.perf_counter() - began)
    return spent


def command(peer: str, pictures: list[Path], out: Path) -> list[str]:
    """The process of a peer; tumorlens is its own command line, as a user would call it."""
    if not peer.startswith("tumorlens"):
        return [sys.executable, __file__, "--peer", peer, "--out", str(out), *map(str, pictures)]
    kind = peer.rpartition(" ")[2]
    how = ["--engine", kind] if kind == "onnxruntime" else ["--precision", kind]
    call = [sys.executable, "-m", "tumorlens", "predict", *map(str, pictures), "--out", str(out / "labels.csv")]
    return [*call, "--heatmaps", str(out / "maps"), *how]


def process(call: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in MB of a process and its threads."""
    began = time.perf_counter()
    child = subprocess.Popen(call, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(call)[:300]}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def measure(pictures: list[Path], few: int, many: int, rounds: int) -> dict[str, dict[str, float]]:
    rows: dict[str, list[tuple[float, float, float]]] = {peer: [] for peer in PEERS}
    for number in range(rounds + 1):  # the first warms the disk and the cache of graphs
        for peer in PEERS:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "few").mkdir(), (Path(folder) / "many").mkdir()
                short, _ = process(command(peer, pictures[:few], Path(folder) / "few"))
                if number == 0:
                    continue
                long, memory = process(command(peer, pictures[:many], Path(folder) / "many"))
            rows[peer].append(((many - few) / (long - short), short - few * (long - short) / (many - few), memory))
            print(f"{peer}: {rows[peer][-1][0]:.1f} pictures a second", flush=True)
    found = {}
    for peer, values in rows.items():
        rate, start, memory = (statistics.median(column) for column in zip(*values, strict=True))
        with tempfile.TemporaryDirectory() as folder:
            call = [sys.executable, __file__, "--peer", peer, "--out", folder, *map(str, pictures[:many])]
            spent = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        found[peer] = {
            "pictures_per_second": rate, "start_seconds": start, "memory_mb": memory,
            "latency_p50_ms": 1000 * float(np.median(spent[3:])),
            "latency_p99_ms": 1000 * float(np.quantile(spent[3:], 0.99)),
        }  # fmt: skip
    return found


def roofline() -> dict[str, float]:
    """The network's arithmetic against the best matrix product that is at hand, float32, GFLOP/s."""
    import openvino as ov
    import torch
    from openvino import opset13 as ops

    from tumorlens.model.bundle import ONNX
    from tumorlens.pipeline import REFERENCE

    core, n, batch = ov.Core(), 2048, 4
    left = ops.parameter([n, n], np.float32)
    product = ov.Model([ops.matmul(left, ops.constant(np.random.rand(n, n).astype(np.float32)), False, False)], [left])
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled, values = core.compile_model(product, "CPU", hint), np.random.rand(n, n).astype(np.float32)
    tensor = torch.from_numpy(values)
    best = min(_fastest(lambda: compiled(values)), _fastest(lambda: tensor @ tensor), _fastest(lambda: values @ values))
    graph = core.read_model(REFERENCE / ONNX)
    graph.reshape([batch, 1, SIZE, SIZE])
    flops = 0.0
    for op in graph.get_ordered_ops():
        if op.get_type_name() == "Convolution":
            out, weight = op.output(0).get_shape(), op.input(1).get_shape()
            flops += 2 * float(np.prod(out)) * float(np.prod(weight[1:]))
    network, images = core.compile_model(graph, "CPU", hint), np.random.rand(batch, 1, SIZE, SIZE).astype(np.float32)
    peak, reached = 2 * n**3 / best / 1e9, flops / _fastest(lambda: network(images)) / 1e9
    return {
        "peak_gflops": peak,
        "network_gflops": reached,
        "share": reached / peak,
        "gflop_a_picture": flops / batch / 1e9,
    }


def _fastest(call: Callable[[], Any], times: int = 12) -> float:
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return min(spent)


def growth(pictures: list[Path]) -> list[dict[str, float]]:
    """Seconds and memory of the command line for more and more pictures (copies by hard link)."""
    rows = []
    for count in (100, 300, 1000):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "in").mkdir()
            for number in range(count):
                source = pictures[number % len(pictures)]
                (Path(folder) / "in" / f"{number:06d}{source.suffix}").write_bytes(source.read_bytes())
            call = [sys.executable, "-m", "tumorlens", "predict", f"{folder}/in", "--out", f"{folder}/out.csv"]
            seconds, memory = process([*call, "--heatmaps", f"{folder}/maps", "--precision", "int8"])
        rows.append({"pictures": count, "seconds": seconds, "memory_mb": memory})
        print(f"{count} pictures: {seconds:.1f} s, {memory:.0f} MB", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path, nargs="*")
    parser.add_argument("--few", type=int, default=8)
    parser.add_argument("--many", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--peer")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--from", type=Path, dest="kept")
    given = parser.parse_args()
    if given.peer:
        print(json.dumps(work(given.peer, given.pictures, given.out)))
        return
    pictures = sorted(path for folder in given.pictures for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    found: dict[str, Any] = json.loads(given.kept.read_text()) if given.kept else {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"), "few": given.few, "many": given.many,
        "peers": measure(pictures, given.few, given.many, given.rounds),
        # Before anything large is loaded here: a child's peak memory is at least its parent's.
        "growth": growth(pictures) if given.growth else [], "roofline": roofline(),
    }  # fmt: skip
    text = tables(found)
    print(text)
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if given.page:
        before, _, rest = given.page.read_text(encoding="utf-8").partition(BEGIN)
        given.page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    if given.figure and found["growth"]:
        draw(found["growth"], given.figure)


def tables(found: dict[str, Any]) -> str:
    """All of it as Markdown."""
    base = found["peers"]["PyTorch + torchcam"]
    lines = [
        f"{found['machine']}; {found['date']}.", "",
        "| | pictures a second | beside torchcam | one picture, p50 (p99) | beside torchcam | start | memory |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for peer, row in found["peers"].items():
        faster = row["pictures_per_second"] / base["pictures_per_second"]
        start, memory = f"{row['start_seconds']:.1f} s", f"{row['memory_mb']:.0f} MB"
        shorter = row["latency_p50_ms"] / base["latency_p50_ms"]
        lines.append(
            f"| {peer} | {row['pictures_per_second']:.1f} | {faster:.1f} x | {row['latency_p50_ms']:.0f} ms "
            f"({row['latency_p99_ms']:.0f}) | {shorter:.2f} x | {start} | {memory} |"
        )
    roof = found["roofline"]
    lines += [
        "", f"Roofline, float32: the best matrix product reaches {roof['peak_gflops']:.0f} GFLOP/s, the network's "
        f"convolutions {roof['network_gflops']:.0f}, {roof['share']:.0%} of it "
        f"({roof['gflop_a_picture']:.1f} GFLOP a picture).",
    ]  # fmt: skip
    if found["growth"]:
        told = ", ".join(
            f"{row['pictures']} in {row['seconds']:.0f} s with {row['memory_mb']:.0f} MB" for row in found["growth"]
        )
        lines += ["", f"More and more pictures, 8 bits, maps and overlays written: {told}."]
    return "\n".join(lines)


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Time and memory by the number of pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    counts = [row["pictures"] for row in rows]
    for axis, key, label in zip(
        figure.subplots(1, 2), ("seconds", "memory_mb"), ("seconds", "memory, MB"), strict=True
    ):
        axis.plot(counts, [row[key] for row in rows], "o-", ms=4, color="#0072B2")
        axis.set(xlabel="pictures", ylabel=label, ylim=(0, None), xlim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")
    flags = next((line for line in lines if line.startswith("flags")), "")
    return f"{name} ({'AVX-512' if 'avx512f' in flags else 'AVX2' if 'avx2' in flags else 'no AVX2'})"


if __name__ == "__main__":
    main()
