"""Work spread over threads whose results come in the order of the input."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Iterator[R]:
    """Apply a function in threads, and yield the results in the order of the items.

    Threads help where the work lets go of the interpreter: decoding, inference, compression, files.

    Args:
        function: what to do; what it raises is raised here, at its place in the order.
        items: read as they are needed, in the caller's thread.
        workers: how many threads.
        ahead: how many results may be under way or waiting; bounds the memory.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # interrupted: what has not begun need not
            for future in waiting:
                future.cancel()
