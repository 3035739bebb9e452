"""Write Keras files and what Keras computes with them; run by test_keras_weights.py in a process of its own.

Keras picks its backend when it is first imported and keeps settings in the user's home; neither is the business of the
process that tests. Usage: python write_keras.py FOLDER
"""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from keras import layers

MEAN = 255.0 * np.array([0.485, 0.456, 0.406])  # this project's mean, in Keras' units


def pictures(side: int, count: int = 8) -> np.ndarray:
    """Grey pictures (count, side, side) from 0 to 255, as smooth as pictures are."""
    rng = np.random.default_rng(7)
    coarse = rng.uniform(0, 1, (count, 1 + side // 8, 1 + side // 8))
    smooth = np.kron(coarse, np.ones((8, 8)))[:, :side, :side]
    return (255 * np.clip(0.8 * smooth + 0.2 * rng.uniform(0, 1, smooth.shape), 0, 1)).astype("float32")


def convolve(x, name: str, channels: int, size: int, stride: int):
    """Convolution and batch norm. Padded by hand: Keras' own `same` pads one side alone where there is a stride."""
    x = layers.ZeroPadding2D(size // 2)(x)
    x = layers.Conv2D(channels, size, strides=stride, name=f"{name}_conv")(x)
    return layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_bn")(x)


def residual(x, name: str, width: int, first: int, second: int):
    """A bottleneck block with the strides of its first 1x1 and of its 3x3 convolution."""
    shortcut = convolve(x, f"{name}_0", 4 * width, 1, first * second)
    y = layers.Activation("relu")(convolve(x, f"{name}_1", width, 1, first))
    y = layers.Activation("relu")(convolve(y, f"{name}_2", width, 3, second))
    return layers.Activation("relu")(layers.Add()([shortcut, convolve(y, f"{name}_3", 4 * width, 1, 1)]))


def small(v1: bool, side: int = 64) -> keras.Model:
    """A ResNet with one block a stage, built by hand in either layout."""
    inputs = keras.Input((side, side, 3))
    x = layers.Conv2D(64, 7, strides=2, name="conv1_conv")(layers.ZeroPadding2D(3)(inputs))
    x = layers.Activation("relu")(layers.BatchNormalization(epsilon=1e-3, name="conv1_bn")(x))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for stage in range(4):
        stride = 2 if stage else 1
        x = residual(x, f"conv{stage + 2}_block1", 64 << stage, stride if v1 else 1, 1 if v1 else stride)
    return keras.Model(inputs, x, name="resnet50")


def randomise(model: keras.Model, inputs: np.ndarray) -> None:
    """Statistics as a training on `inputs` leaves them, then every value drawn about that."""
    rng = np.random.default_rng(3)
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(inputs, training=True)
    for layer in norms:
        layer.momentum = 0.99
        _, _, mean, variance = layer.get_weights()
        size = mean.shape
        layer.set_weights([
            rng.uniform(0.5, 1.5, size), rng.normal(0, 0.3, size),
            mean + rng.normal(0, 0.2, size) * np.sqrt(variance), variance * rng.uniform(0.5, 2, size),
        ])  # fmt: skip
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 5 * kernel.std(), bias.shape)])


def main(folder: Path) -> None:
    keras.utils.set_random_seed(3)  # Keras draws its kernels: what the border does to them is near the test's bound
    grey = pictures(64)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    caffe = keras.applications.resnet50.preprocess_input(colour.copy())
    found = {"grey": grey / 255}

    def keep(name: str, model: keras.Model, inputs: np.ndarray) -> None:
        found[name] = model.predict(inputs[:2], verbose=0)

    full = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(64, 64, 3))
    randomise(full, caffe)
    full.save(folder / "full.keras")
    full.save(folder / "full.h5")
    full.save_weights(folder / "full.weights.h5")
    keep("full", full, caffe)
    keep("full_own_mean", full, (colour - MEAN)[..., ::-1].copy())
    keep("full_stem", keras.Model(full.input, full.get_layer("conv1_relu").output), caffe)
    for name, v1 in (("v1", True), ("v1.5", False)):
        body = small(v1)
        randomise(body, caffe)
        keep(name, body, caffe)
        outer = keras.Sequential([
            keras.Input((64, 64, 3)), layers.RandomFlip(), body, layers.GlobalAveragePooling2D(), layers.Dense(4),
        ])  # fmt: skip
        outer.save(folder / f"{name}.keras")
        outer.save(folder / f"{name}.h5")
    body = small(v1=True)
    randomise(body, caffe / 255)
    keep("unit", body, caffe / 255)
    body.save(folder / "unit.h5")
    np.savez(folder / "found.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
