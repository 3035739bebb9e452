"""What a user would write with other tools to label and explain pictures, and tumorlens in their place, a process each.

    python benchmarks/peers.py PEER PICTURES… --side 192 --out FOLDER    # prints the seconds of each picture, as JSON
    python benchmarks/peers.py PEER --size                               # prints the MB that its packages take, as JSON

`benchmarks/speed.py` starts these, each by the Python of an environment that has the peer. Keras and detect-tumor need
nothing of tumorlens.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

#: Answers a picture, writes its map and overlay into a folder, and returns its label's number.
Answer = Callable[[Path, Path], int]
#: The packages that a user installs.
PACKAGES = {
    "tumorlens": ("tumorlens",),
    "tumorlens onnxruntime": ("tumorlens", "onnxruntime"),
    "PyTorch + torchcam": ("torch", "torchcam", "pillow", "matplotlib"),
    "PyTorch + captum": ("torch", "captum", "pillow", "matplotlib"),
    "Keras": ("tensorflow-cpu", "keras", "pillow", "matplotlib"),
    "detect-tumor": ("detect-tumor",),
}


def plain_resnet() -> Any:
    """ResNet-50 of grey pictures for four classes with its last stage dilated, in PyTorch and nothing else: a user has
    neither this package nor the library that its network comes from, whose import takes memory and seconds."""
    import torch
    from torch import nn

    def step(wide: int, out: int, side: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
        pad = dilation * (side // 2)
        return [nn.Conv2d(wide, out, side, stride, pad, dilation, bias=False), nn.BatchNorm2d(out)]

    class Block(nn.Module):
        def __init__(self, wide: int, inner: int, stride: int, dilation: int) -> None:
            super().__init__()
            first, second = step(wide, inner, 1), step(inner, inner, 3, stride, dilation)
            self.body = nn.Sequential(*first, nn.ReLU(), *second, nn.ReLU(), *step(inner, 4 * inner, 1))
            same = stride == 1 and wide == 4 * inner
            self.short = nn.Identity() if same else nn.Sequential(*step(wide, 4 * inner, 1, stride))

        def forward(self, values: Any) -> Any:
            return torch.relu(self.body(values) + self.short(values))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(*step(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
            wide = 64
            for number, (blocks, inner, stride, dilation) in enumerate(
                ((3, 64, 1, 1), (4, 128, 2, 1), (6, 256, 2, 1), (3, 512, 1, 2)), start=1
            ):
                stage = []
                for block in range(blocks):
                    stage.append(Block(wide, inner, stride if block == 0 else 1, dilation))
                    wide = 4 * inner
                setattr(self, f"layer{number}", nn.Sequential(*stage))
            self.fc = nn.Linear(wide, 4)

        def forward(self, images: Any) -> Any:
            values = self.stem((images.expand(-1, 3, -1, -1) - 0.45) / 0.225)
            for number in range(1, 5):
                values = getattr(self, f"layer{number}")(values)
            return self.fc(values.mean(dim=(2, 3)))

    return Network()


def torch_peer(library: str, precision: str, side: int) -> Answer:
    """What a user of PyTorch writes: one picture at a time, forward, backward, map, overlay by a colour map; in
    bfloat16, where that is asked, by autocast."""
    import torch
    from torch.nn.functional import interpolate

    network = plain_resnet().eval()
    last = network.layer4[-1]
    if library == "torchcam":
        from torchcam.methods import GradCAM

        extractor = GradCAM(network, last)
    else:
        from captum.attr import LayerGradCam

        extractor = LayerGradCam(network, last)

    def answer(path: Path, out: Path) -> int:
        picture, square = _read(path, side)
        image = torch.from_numpy(square)[None, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            if library == "torchcam":
                scores = network(image)
                chosen = int(scores.argmax())
                small = extractor(chosen, scores)[0][None]
            else:
                with torch.no_grad():
                    chosen = int(network(image).argmax())
                small = extractor.attribute(image, target=chosen, relu_attributions=True).detach()
        size = (picture.height, picture.width)
        small = small.float()
        values = interpolate(small.reshape(1, 1, *small.shape[-2:]), size, mode="bilinear")[0, 0].numpy()
        _write(f"{out}/{path.stem}", picture, values)
        return chosen

    return answer


def keras_peer(side: int) -> Answer:
    """The Grad-CAM recipe of Keras's documentation (Chollet, keras.io, "Grad-CAM class activation visualization"): a
    model of two outputs, a gradient tape, the map by pooled gradients; ResNet-50 with a dilated last stage, as here.
    (Its strides stand in the 1 x 1 convolutions, so it has slightly less to compute.)"""
    import tensorflow as tf
    from tensorflow import keras

    base = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(side, side, 3), pooling="avg")
    settings = base.get_config()
    for layer in settings["layers"]:
        if layer["name"] in ("conv5_block1_0_conv", "conv5_block1_1_conv"):
            layer["config"]["strides"] = (1, 1)
        if re.fullmatch(r"conv5_block\d_2_conv", layer["name"]):
            layer["config"]["dilation_rate"] = (2, 2)
    network = keras.Model.from_config(settings)
    scores = keras.layers.Dense(4)(network.output)
    both = keras.Model(network.inputs, [network.get_layer("conv5_block3_out").output, scores])

    def answer(path: Path, out: Path) -> int:
        picture, square = _read(path, side)
        with tf.GradientTape() as tape:
            features, said = both(np.repeat(square[None, :, :, None], 3, axis=3))
            chosen = int(tf.argmax(said[0]))
            score = said[:, chosen]
        weights = tf.reduce_mean(tape.gradient(score, features), axis=(0, 1, 2))
        small = tf.nn.relu(features[0] @ weights[:, None])
        values = tf.image.resize(small, (picture.height, picture.width))[..., 0].numpy()
        _write(f"{out}/{path.stem}", picture, values)
        return chosen

    return answer


def detect_tumor_peer() -> Answer:
    """The package of the registry: a VGG-16 at 240 x 240, a label alone."""
    from detect_tumor import TumorDetector

    detector = TumorDetector()
    names = ("glioma", "meningioma", "notumor", "pituitary")
    return lambda path, out: names.index(detector.predict(path).predicted_class)


def own_peer(precision: str) -> Answer:
    """tumorlens, one picture at a time, by what `tumorlens predict` is made of."""
    from tumorlens.data.readers import read_slices
    from tumorlens.pipeline import REFERENCE, Explained, MapFolder
    from tumorlens.runtime.engine import cache_folder
    from tumorlens.runtime.predictor import Predictor

    engine: Any = "onnxruntime" if precision == "onnxruntime" else "auto"
    chosen: Any = "fp32" if precision == "onnxruntime" else precision
    predictor = Predictor(REFERENCE, answer_all=True, engine=engine, cache=cache_folder(), precision=chosen)

    def answer(path: Path, out: Path) -> int:
        (picture,) = read_slices(path)
        item = Explained(predictor.predict([picture])[0], picture)
        MapFolder(out).save(item)
        return predictor.classes.index(item.answer.prediction.predicted)

    return answer


def torch_start(weights: Path) -> None:
    """The least that a first answer costs with PyTorch: its import, and reading weights from disk."""
    import torch

    torch.load(weights, weights_only=True)


def write_weights(weights: Path) -> None:
    """As many random weights as ResNet-50 has, for `torch_start`."""
    import torch

    torch.save({"weights": torch.rand(25_557_032)}, weights)


def _read(path: Path, side: int) -> tuple[Image.Image, Any]:
    picture = Image.open(path).convert("L")
    return picture, np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32) / 255


def _write(name: str, picture: Image.Image, values: Any) -> None:
    from matplotlib import colormaps

    strength = values / max(float(values.max()), 1e-9)
    colours = Image.fromarray((colormaps["inferno"](strength)[..., :3] * 255).astype(np.uint8))
    np.save(f"{name}.npy", values)
    Image.blend(picture.convert("RGB"), colours, 0.5).save(f"{name}.png", compress_level=1)


def find_peer(peer: str, side: int) -> Answer:
    """The peer of that name, loaded; all but ours and detect-tumor answer squares of `side` pixels."""
    kind, _, library = peer.partition(" ")
    if kind == "PyTorch":
        name, _, precision = library.removeprefix("+ ").partition(" ")
        return torch_peer(name, precision, side)
    if kind == "tumorlens":
        return own_peer(library)
    return {"Keras": lambda: keras_peer(side), "detect-tumor": detect_tumor_peer}[peer]()


def work(peer: str, pictures: list[Path], side: int, out: Path) -> list[float]:
    """Answer pictures one by one, and how long each took in seconds."""
    answer = find_peer(peer, side)
    spent = []
    for path in pictures:
        began = time.perf_counter()
        label = answer(path, out)
        with (out / "labels.csv").open("a") as file:
            file.write(f"{path.name},{label}\n")
        spent.append(time.perf_counter() - began)
    return spent


def install_size(names: Iterable[str]) -> float:
    """MB of the files of packages and all that they need, in this environment."""
    waiting, seen, total = list(names), set(), 0
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another system or Python
            continue
        files = [Path(str(found.locate_file(file))) for file in found.files or ()]
        if name == "tumorlens":  # installed in place
            import tumorlens

            files = list(Path(tumorlens.__file__).parent.rglob("*"))
        total += sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")
        waiting += [
            match[0]
            for line in found.requires or ()
            if not re.search(r"extra\s*==", line) and (match := re.match(r"[\w.-]+", line))
        ]
    return total / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("pictures", type=Path, nargs="*")
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--size", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    given = parser.parse_args()
    if given.size:
        name = given.peer.removesuffix(" bf16")
        name = name if name in PACKAGES else name.partition(" ")[0]  # tumorlens in one of its precisions
        print(json.dumps(install_size(PACKAGES[name])))
    elif given.prepare:
        write_weights(given.out / "weights.pt")
    elif given.peer == "import torch":
        torch_start(given.out / "weights.pt")
    else:
        print(json.dumps(work(given.peer, given.pictures, given.side, given.out)))


if __name__ == "__main__":
    main()
