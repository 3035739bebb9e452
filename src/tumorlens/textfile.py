"""Text files that are there whole or not at all."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file, UTF-8 with plain line ends; what was there stays until all of it is written.

    Names of files that are not UTF-8, which Python holds as lone surrogates, are told with backslashes.
    """
    temporary = path.with_name(f"{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
