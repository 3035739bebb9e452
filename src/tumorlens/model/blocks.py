"""The residual blocks of ResNet-50 under both of their names: Keras' `conv5_block3_out`, PyTorch's `layer4[2]`."""

import re

from tumorlens.errors import TumorlensError

BLOCKS_PER_LAYER = (3, 4, 6, 3)

#: (Keras name, PyTorch name) of every residual block, first to last.
BLOCKS: tuple[tuple[str, str], ...] = tuple(
    (f"conv{layer + 1}_block{block + 1}_out", f"layer{layer}[{block}]")
    for layer, count in enumerate(BLOCKS_PER_LAYER, start=1)
    for block in range(count)
)

LAST_BLOCK = BLOCKS[-1]


def find_block(name: str) -> tuple[int, int]:
    """Layer (1 to 4) and block index (from 0) of a residual block by either name; `layer4.2` is taken too.

    Raises:
        TumorlensError: no block has this name.
    """
    plain = re.sub(r"\.(\d+)$", r"[\1]", name.strip())
    for keras, torch_name in BLOCKS:
        if plain in (keras, torch_name):
            layer, block = re.findall(r"\d+", torch_name)
            return int(layer), int(block)
    raise TumorlensError(
        f"no residual block is called {name!r}. Names run from {BLOCKS[0][0]} (= {BLOCKS[0][1]}) to "
        f"{LAST_BLOCK[0]} (= {LAST_BLOCK[1]})"
    )
