"""From files to labels, maps and overlays: tumorlens beside what a user would write instead, in one run.

    python benchmarks/speed.py PICTURES [--few 8] [--many 64] [--rounds 2] [--growth] [--environments FOLDER]
        [--out docs/results/speed.json] [--page docs/performance.md] [--figure docs/growth.svg]

Every peer (`benchmarks/peers.py`) is a process of its own that reads the same pictures and writes the same things for
each: a label, the raw map (.npy) and an overlay (.png); detect-tumor gives labels alone. All but it compute the same
network: ResNet-50 with a dilated last stage, at the shipped model's size, of random weights where it is not ours
(speed does not depend on them). Peers take turns. A process is timed with few and with many pictures (quick peers
with eight times as many): the difference gives pictures a second; with one picture: the first answer. One picture's
latency is measured in a warm process. `--environments` makes environments for Keras and detect-tumor below FOLDER, or
takes those that are there; without it they are left out. pytorch-grad-cam is not among the peers: it needs torchvision.
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

from tumorlens.model.bundle import INT8, ONNX, load_card
from tumorlens.no_telemetry import load_openvino
from tumorlens.pipeline import REFERENCE

SIDE, PRODUCT = load_card(REFERENCE, needs=ONNX).preprocess.size, 2048
QUICK, MORE = 5.0, 8  # a peer that needs fewer seconds gets so many times the pictures: its start-up varies by tenths
WORKER = Path(__file__).parent / "peers.py"
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
BEGIN, END = "<!-- begin of what benchmarks/speed.py wrote -->", "<!-- end -->"
PEERS = ("tumorlens fp32", "tumorlens int8", "tumorlens onnxruntime", "PyTorch + torchcam", "PyTorch + captum")
#: Only where the processor computes in it.
BF16 = ("tumorlens bf16", "PyTorch + torchcam bf16")
#: Peers with environments of their own, which `--environments` makes.
APART = {"Keras": ["tensorflow-cpu", "matplotlib"], "detect-tumor": ["detect-tumor"]}


def has_bf16() -> bool:
    """Whether this processor computes in bfloat16, asked in a process of its own to keep this one small."""
    ask = "from tumorlens.runtime.engine import capabilities; print(*capabilities())"
    answer = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    return "BF16" in answer.stdout.split()


def environments(folder: Path | None) -> dict[str, str]:
    """The Python of each peer."""
    found = dict.fromkeys((*PEERS, *(BF16 if has_bf16() else ())), sys.executable)
    for peer, needs in APART.items() if folder else ():
        place = folder / peer
        if not (place / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            subprocess.run([str(place / "bin" / "pip"), "install", "-q", *needs], check=True)
            (place / "complete").touch()
        found[peer] = str(place / "bin" / "python")
    return found


def command(peer: str, python: str, pictures: list[Path], out: Path) -> list[str]:
    """The process of a peer; tumorlens is its own command line, as a user would call it."""
    if not peer.startswith("tumorlens"):
        return [python, str(WORKER), peer, *map(str, pictures), "--side", str(SIDE), "--out", str(out)]
    kind = peer.rpartition(" ")[2]
    how = ["--engine", kind] if kind == "onnxruntime" else ["--precision", kind]
    call = [python, "-m", "tumorlens", "predict", *map(str, pictures), "--out", str(out / "labels.csv")]
    return [*call, "--heatmaps", str(out / "maps"), *how]


def process(call: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in MB of a process and its threads."""
    began = time.perf_counter()
    child = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(call)[:300]}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def measure(
    pictures: list[Path], pythons: dict[str, str], few: int, many: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Medians over the rounds of each peer's figures."""
    rows: dict[str, list[tuple[float, float, float]]] = {peer: [] for peer in pythons}
    most = dict.fromkeys(pythons, many)
    for number in range(rounds + 1):  # the first warms the disk and the cache of graphs
        for peer, python in pythons.items():
            taken = []
            for count in (1, few, most[peer]):
                with tempfile.TemporaryDirectory() as folder:
                    taken.append(process(command(peer, python, pictures[:count], Path(folder))))
            (first, _), (short, _), (long, memory) = taken
            if number:
                rows[peer].append(((most[peer] - few) / (long - short), first, memory))
                print(f"{peer}: {rows[peer][-1][0]:.1f} pictures a second, first after {first:.1f} s", flush=True)
            elif long - short < QUICK:
                most[peer] = min(MORE * many, len(pictures))
    found = {}
    for peer, values in rows.items():
        rate, first, memory = (statistics.median(column) for column in zip(*values, strict=True))
        with tempfile.TemporaryDirectory() as folder:
            spent = ask(pythons[peer], peer, *map(str, pictures[:many]), "--side", str(SIDE), "--out", folder)
        found[peer] = {
            "pictures": most[peer], "pictures_per_second": rate, "first_answer_seconds": first, "memory_mb": memory,
            "latency_p50_ms": 1000 * float(np.median(spent[3:])),
            "latency_p99_ms": 1000 * float(np.quantile(spent[3:], 0.99)),
            "install_mb": ask(pythons[peer], peer, "--size"),
        }  # fmt: skip
    return found


def ask(python: str, *arguments: str) -> Any:
    """What a worker prints, from JSON."""
    call = [python, str(WORKER), *arguments]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def least_torch_start(rounds: int) -> float:
    """Seconds of a process that imports torch and reads the weights of a ResNet-50, and does no more."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, str(WORKER), "import torch", "--prepare", "--out", folder], check=True)
        call = [sys.executable, str(WORKER), "import torch", "--out", folder]
        return statistics.median([process(call)[0] for _ in range(rounds + 1)][1:])


def rooflines() -> dict[str, dict[str, float]]:
    """The network's arithmetic against the best matrix product that is at hand, by precision, in GFLOP/s.

    Eight-bit operations are counted like the others: a product and a sum are two.
    """
    flops = _arithmetic()
    found = {}
    for precision in ("fp32", *(("bf16",) if has_bf16() else ()), "int8"):
        peak, reached = 2 * PRODUCT**3 / _best_product(precision) / 1e9, flops / _network(precision) / 1e9
        found[precision] = {"peak_gflops": peak, "network_gflops": reached, "share": reached / peak}
        print(f"{precision}: peak {peak:.0f}, network {reached:.0f} GFLOP/s", flush=True)
    return {**found, "picture": {"gflop": flops / 1e9}}


def _arithmetic() -> float:
    """Operations of the convolutions for one picture."""
    ov = load_openvino()

    graph = ov.Core().read_model(REFERENCE / ONNX)
    graph.reshape([1, 1, SIDE, SIDE])
    return sum(
        2 * float(np.prod(op.output(0).get_shape())) * float(np.prod(op.input(1).get_shape()[1:]))
        for op in graph.get_ordered_ops() if op.get_type_name() == "Convolution"
    )  # fmt: skip


def _network(precision: str) -> float:
    """Seconds of the graph alone for a picture, in the quickest of three batch sizes."""
    ov = load_openvino()

    core = ov.Core()
    graph = core.read_model(REFERENCE / (INT8[0] if precision == "int8" else ONNX))
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": HINTS[precision]})
    times = []
    for batch in (1, 4, 8):
        images = np.random.rand(batch, 1, SIDE, SIDE).astype(np.float32)
        times.append(_fastest(lambda images=images: compiled(images)) / batch)
    return min(times)


def _best_product(precision: str) -> float:
    """Seconds of a large matrix product by the quickest of the engines that have the precision."""
    ov = load_openvino()
    import torch
    from openvino import opset13 as ops

    values = np.random.rand(PRODUCT, PRODUCT).astype(np.float32)
    left = ops.parameter([PRODUCT, PRODUCT], np.float32)
    right = ops.constant(values)
    if precision == "int8":  # both sides on 8-bit grids: OpenVINO computes such a product in 8 bits
        factors = [
            ops.fake_quantize(side, *(np.array(end, dtype=np.float32) for end in (0.0, 1.0, 0.0, 1.0)), 256)
            if side is left
            else ops.fake_quantize(side, *(np.array(end, dtype=np.float32) for end in (-1.0, 1.0, -1.0, 1.0)), 255)
            for side in (left, right)
        ]  # fmt: skip
    else:
        factors = [left, right]
    product = ov.Model([ops.matmul(*factors, False, False)], [left])
    compiled = ov.Core().compile_model(product, "CPU", {"INFERENCE_PRECISION_HINT": HINTS[precision]})
    times = [_fastest(lambda: compiled(values))]
    if precision == "int8":
        whole = torch.randint(-128, 128, (PRODUCT, PRODUCT), dtype=torch.int8)
        times.append(_fastest(lambda: torch._int_mm(whole, whole), times=2))  # slow without 8-bit instructions
    else:
        tensor = torch.from_numpy(values).to(torch.bfloat16 if precision == "bf16" else torch.float32)
        times.append(_fastest(lambda: tensor @ tensor))
    if precision == "fp32":
        times.append(_fastest(lambda: values @ values))
    return min(times)


def _fastest(call: Callable[[], Any], times: int = 12) -> float:
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return min(spent)


def growth(pictures: list[Path]) -> list[dict[str, float]]:
    """Seconds and memory of the command line for more and more pictures (copies: 10,000 need 5 GB)."""
    rows = []
    for count in (100, 1000, 10_000):
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
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--from", type=Path, dest="kept")
    given = parser.parse_args()
    pictures = sorted(path for folder in given.pictures for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    if not given.kept and not 1 <= given.few < given.many <= len(pictures):
        raise SystemExit(f"--few {given.few} --many {given.many}: few < many <= {len(pictures)} pictures is needed")
    found: dict[str, Any] = json.loads(given.kept.read_text()) if given.kept else {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"), "side": SIDE, "few": given.few, "rounds": given.rounds,
        "peers": measure(
            pictures, environments(given.environments), given.few, given.many, given.rounds
        ),
        "least_torch_start_seconds": least_torch_start(given.rounds),
        # Before anything large is loaded here: a child's peak memory is at least its parent's.
        "growth": growth(pictures) if given.growth else [], "rooflines": rooflines(),
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
        f"{found['machine']}; {found['date']}; the network at {found['side']} x {found['side']}.", "",
        "| | pictures a second | beside torchcam | one picture, p50 (p99) | beside torchcam | first answer | memory "
        "| installed |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for peer, row in found["peers"].items():
        faster = row["pictures_per_second"] / base["pictures_per_second"]
        shorter = row["latency_p50_ms"] / base["latency_p50_ms"]
        lines.append(
            f"| {peer} | {row['pictures_per_second']:.1f} | {faster:.1f} x | {row['latency_p50_ms']:.0f} ms "
            f"({row['latency_p99_ms']:.0f}) | {shorter:.2f} x | {row['first_answer_seconds']:.1f} s | "
            f"{row['memory_mb']:.0f} MB | {row['install_mb']:.0f} MB |"
        )
    least = found["least_torch_start_seconds"]
    own = found["peers"]["tumorlens fp32"]["first_answer_seconds"]
    lines += [
        "", f"Importing torch and reading the weights of a ResNet-50, without building it, takes {least:.1f} s; the "
        f"first answer of `tumorlens predict`, with map and overlay, {own / least:.2f} times as long.",
        "", "| precision | best matrix product | the network's convolutions | share |", "|---|---|---|---|",
    ]  # fmt: skip
    for precision, roof in found["rooflines"].items():
        if precision != "picture":
            peak, reached = f"{roof['peak_gflops']:.0f} GFLOP/s", f"{roof['network_gflops']:.0f}"
            lines.append(f"| {precision} | {peak} | {reached} | {roof['share']:.0%} |")
    lines += ["", f"A picture's convolutions are {found['rooflines']['picture']['gflop']:.1f} GFLOP."]
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
    known = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
    return f"{name} ({next((title for flag, title in known.items() if flag in flags), 'no AVX2')})"


if __name__ == "__main__":
    main()
