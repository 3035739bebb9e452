"""Asking servers: only https, or http on this machine; what may be tried again, and what not."""

import re
import ssl
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPResponse
from typing import IO, Any, TypeVar, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tumorlens import __version__
from tumorlens.errors import FetchError

#: Seconds to wait before each new try; they begin again whenever a try brought more of the file.
WAITS = (1.0, 4.0, 15.0, 30.0)
TIMEOUT = 30.0

_CHUNK = 1 << 18
_LONGEST_WAIT = 60.0
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_WANTS_BROWSER = (202, 401, 403)  # 202 is how figshare's firewall asks for a browser

T = TypeVar("T")


class AgainError(Exception):
    """What another try may mend; `wait` is what the server asks for, in seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class PastEndError(Exception):
    """The server has nothing from this offset on (416); `total` is the size it names."""

    def __init__(self, total: int | None) -> None:
        super().__init__()
        self.total = total


class _Redirects(HTTPRedirectHandler):
    """Follows redirects only to where `check_url` would go, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        check_url(newurl)
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise FetchError(f"{req.full_url}: redirects to {newurl}, without https; it is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = build_opener(_Redirects)


def open_url(url: str, page: str, headers: dict[str, str] | None = None) -> HTTPResponse:
    """Ask for `url`.

    Raises:
        AgainError, PastEndError: as they say.
        FetchError: refused, not there, or a certificate that cannot be trusted.
    """
    check_url(url)
    host = urlsplit(url).hostname
    request = Request(url, headers={"User-Agent": f"tumorlens/{__version__}", **(headers or {})})
    try:
        response = cast(HTTPResponse, _opener.open(request, timeout=TIMEOUT))
    except HTTPError as error:
        with error:
            raise _refusal(error, url, page) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise FetchError(
                f"{host}: its certificate cannot be verified ({reason.verify_message}). Check this machine's clock "
                f"and proxy, or download by hand from {page}"
            ) from error
        raise AgainError(f"{host} cannot be reached ({reason or type(reason).__name__})") from error
    if response.status in _WANTS_BROWSER:
        response.close()
        raise FetchError(by_hand(url, f"answers {response.status}: it asks for a browser", page))
    return response


def _refusal(error: HTTPError, url: str, page: str) -> Exception:
    if error.code == 416:
        found = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        return PastEndError(int(found[1]) if found else None)
    if error.code in _TRY_AGAIN:
        asked = error.headers.get("Retry-After", "")
        wait = float(asked) if asked.isascii() and asked.isdigit() else 0.0
        return AgainError(f"{urlsplit(url).hostname} answers {error.code} {error.reason}", wait)
    if error.code in _WANTS_BROWSER:
        return FetchError(by_hand(url, f"answers {error.code} {error.reason}", page))
    return FetchError(f"{url}: the server answers {error.code} {error.reason}. The data set may have moved: see {page}")


def by_hand(url: str, what: str, page: str) -> str:
    """A sentence that sends a person to the page."""
    return (
        f"{url}: the server {what}. Download it by hand in a browser from {page} into a folder and go on "
        "with `tumorlens data index FOLDER`"
    )


def read_block(response: HTTPResponse, host: str) -> bytes:
    """Some more bytes, none at the end.

    Raises:
        AgainError: the connection broke off.
    """
    try:
        return response.read1(_CHUNK)  # read() would lose what came before a break
    except (OSError, HTTPException) as error:
        raise AgainError(f"the connection to {host} broke off ({error or type(error).__name__})") from error


def persist(step: Callable[[], T], url: str, waits: Sequence[float], size: Callable[[], int] = lambda: 0) -> T:
    """Run `step` until it works, with waits between; tries begin anew whenever there is more than ever before.

    Raises:
        FetchError: it did not work in the end.
    """
    tries, most = 0, size()
    while True:
        try:
            return step()
        except AgainError as error:
            if size() > most:
                tries, most = 0, size()
            if tries >= len(waits):
                raise FetchError(
                    f"{url}: {error}, after {tries + 1} tries. Check the network and run the same command again; "
                    "what came so far is kept and gone on from"
                ) from error
            time.sleep(min(max(waits[tries], error.wait), _LONGEST_WAIT))
            tries += 1


def check_url(url: str) -> None:
    """Refuse an address that is neither https nor http on this machine.

    Raises:
        FetchError: it is another.
    """
    try:
        parts = urlsplit(url)
        fine = parts.scheme == "https" and bool(parts.hostname)
        fine = fine or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"))
    except ValueError:
        fine = False
    if not fine:
        raise FetchError(f"{url!r}: not an https address, and no other is asked. The listing may have been changed")
