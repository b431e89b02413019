"""Who may ask the live page: this machine's browser, with the token of the address, from the page itself."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any
from urllib.parse import urlsplit

from shiftlens.errors import InputError

MOST_BYTES = 32 * 2**20
"""Of an upload."""

MOST_SECONDS = 20.0
"""Until the body of a request is there; and, counted roughly, until its head is, or some of an answer is fetched."""

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class RequestError(InputError):
    """A request that is not answered, with its HTTP status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Guard:
    """ASGI: lets a request through to `app` only with the right Host, Origin and token, and says why not in one line.

    Parameters
    ----------
    app
        What is guarded; it sees the path without the token.
    token
        First part of every path.
    """

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            path = self._allowed(scope)
        except RequestError as refused:
            await _say(send, refused.status, f"{refused}\n")
            return
        inside = dict(scope) | {"path": path, "raw_path": path.encode("ascii", "replace")}
        await self._app(inside, receive, send)

    def _allowed(self, scope: Any) -> str:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        port = scope["server"][1]
        hosts = {f"{name}:{port}" for name in LOOPBACK}
        host = [value.decode("latin-1") for value in headers.get(b"host", [])]
        if len(host) != 1 or host[0] not in hosts:
            raise RequestError(403, "this page answers to its own address on this machine only")
        for value in headers.get(b"origin", []):
            origin = urlsplit(value.decode("latin-1"))
            if origin.scheme != "http" or origin.netloc != host[0]:
                raise RequestError(403, "another page may not ask this one")
        if any(value not in (b"same-origin", b"none") for value in headers.get(b"sec-fetch-site", [])):
            raise RequestError(403, "another page may not ask this one")
        first, slash, rest = scope["path"].removeprefix("/").partition("/")
        if not secrets.compare_digest(first.encode("utf-8", "replace"), self._token.encode()):
            raise RequestError(403, "the token is missing or wrong: open the whole address that was printed")
        if not slash:
            raise RequestError(404, "the address ends in /")
        return f"/{rest}"


class Patience:
    """Watches one connection of uvicorn's, and ends it when nothing happens on it for `MOST_SECONDS`, or twice that.

    uvicorn waits for the head of a request, and for a client to fetch an answer, as long as the client likes.

    Parameters
    ----------
    protocol
        The connection: an `H11Protocol` that is connected.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._before: tuple[Any, int] | None = None
        protocol.loop.call_later(MOST_SECONDS, self._look)

    def _look(self) -> None:
        transport, cycle = self._protocol.transport, self._protocol.cycle
        if transport.is_closing():
            return
        unsent = transport.get_write_buffer_size()
        is_waiting = cycle is None or cycle.response_complete or unsent
        if is_waiting and self._before == (cycle, unsent):
            transport.abort()
            return
        self._before = (cycle, unsent) if is_waiting else None
        self._protocol.loop.call_later(MOST_SECONDS, self._look)


async def body_of(request: Any, most: int = MOST_BYTES) -> bytes:
    """The body of a request, of at most `most` bytes and within `MOST_SECONDS`; `RequestError` otherwise."""

    async def read() -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise RequestError(413, f"expected at most {most // 2**20} MB, got more")
            parts.append(part)
        return b"".join(parts)

    said = request.headers.get("content-length", "0")
    if not said.isdigit() or int(said) > most:
        raise RequestError(413, f"expected at most {most // 2**20} MB, got {said} bytes")
    try:
        return await asyncio.wait_for(read(), MOST_SECONDS)
    except TimeoutError:
        raise RequestError(408, f"the request was not complete after {MOST_SECONDS:.0f} s") from None


async def _say(send: Any, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
