import threading
import time

import pytest

from tumorlens.ordered import in_order


def test_results_come_in_order_however_long_each_takes() -> None:
    def late(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(in_order(late, range(20), 4, 6)) == [n * n for n in range(20)]
    assert list(in_order(late, [], 2, 2)) == []


def test_no_more_than_ahead_is_read_or_under_way() -> None:
    taken: list[int] = []

    def items():
        for number in range(10):
            taken.append(number)
            yield number

    results = in_order(lambda n: n, items(), 2, 3)
    assert next(results) == 0
    assert taken == [0, 1, 2]
    results.close()
    assert taken == [0, 1, 2]


def test_work_overlaps() -> None:
    together = threading.Barrier(2, timeout=10)  # passes only where two calls run at once
    assert len(list(in_order(lambda n: together.wait(), range(2), 2, 2))) == 2


def test_an_error_comes_at_its_place() -> None:
    def fragile(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    results = in_order(fragile, range(5), 2, 3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
