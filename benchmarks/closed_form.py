"""What the explanation costs on the exported graph: logits alone, against logits, evidence and Grad-CAM in closed form.

python benchmarks/closed_form.py [BUNDLE] [--rounds 60]

Both in turn in one run, one picture at a time, float32; medians and the median ratio of neighbouring calls.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import softmax

from tumorlens.explain.gradcam import gradcam
from tumorlens.model.bundle import ONNX, load_card
from tumorlens.no_telemetry import load_openvino
from tumorlens.pipeline import REFERENCE

ov = load_openvino()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path, nargs="?", default=REFERENCE)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    card, core = load_card(given.bundle, needs=ONNX), ov.Core()
    whole = core.read_model(given.bundle / ONNX)
    wanted = ov.Model([whole.output("logits").get_node().input_value(0)], whole.get_parameters(), "logits alone")
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    bare, full = core.compile_model(wanted, "CPU", hint), core.compile_model(whole, "CPU", hint)
    image = np.random.default_rng(0).random((1, 1, card.preprocess.size, card.preprocess.size)).astype(np.float32)

    def answer() -> None:
        bare.create_infer_request().infer(image)

    def explain() -> None:
        result = full.create_infer_request().infer(image)
        shares = softmax(np.array(result["logits"])[0].astype(np.float64) / card.temperature)
        chosen = card.classes[int(shares.argmax())]
        gradcam(np.array(result["evidence"])[0], tuple(shares), card.classes, chosen, temperature=card.temperature)

    def timed(work: Callable[[], None]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    for _ in range(5):
        answer(), explain()
    pairs = np.array([(timed(answer), timed(explain)) for _ in range(given.rounds)])
    alone, both = np.median(pairs, axis=0) * 1000
    low, ratio, high = np.percentile(pairs[:, 1] / pairs[:, 0], [25, 50, 75])
    print(f"logits alone {alone:.1f} ms, with all outputs and Grad-CAM {both:.1f} ms a picture")
    print(f"ratio {ratio:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
