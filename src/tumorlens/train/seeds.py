"""Seeds: everything random in training follows from the run's seed and from what it is drawn for."""

import numpy as np


def mix_seed(*parts: int) -> int:
    """One seed from several numbers, well mixed."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
