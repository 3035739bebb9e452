"""Writing an overlay as PNG: the project's writer beside Pillow's, in turn on the same pictures.

python benchmarks/overlays.py [--rounds 20]
"""

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np

from tumorlens.data.readers import read_slices
from tumorlens.examples import EXAMPLES
from tumorlens.explain.png import write_png
from tumorlens.pipeline import REFERENCE, Explained
from tumorlens.runtime.predictor import Predictor


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    predictor = Predictor(REFERENCE, answer_all=True)
    pictures = [read_slices(example.path)[0] for example in EXAMPLES]
    shown = [Explained(a, p).overlay() for a, p in zip(predictor.predict(pictures), pictures, strict=True)]
    pairs, sizes = [], np.zeros(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.png"
        for _ in range(given.rounds):
            for image in shown:
                began = time.perf_counter()
                write_png(path, np.asarray(image))
                middle = time.perf_counter()
                buffer = io.BytesIO()
                image.save(buffer, format="PNG", compress_level=1)
                path.with_suffix(".pillow").write_bytes(buffer.getvalue())
                pairs.append((middle - began, time.perf_counter() - middle))
                sizes += path.stat().st_size, len(buffer.getvalue())
    ours, theirs = np.median(pairs, axis=0) * 1000
    ratio = np.percentile([b / a for a, b in pairs], [25, 50, 75])
    print(f"ours {ours:.1f} ms, Pillow {theirs:.1f} ms")
    print(f"Pillow takes {ratio[1]:.1f} times as long (quartiles {ratio[0]:.1f} to {ratio[2]:.1f})")
    print(f"our files are {sizes[0] / sizes[1]:.2f} times as large")


if __name__ == "__main__":
    main()
