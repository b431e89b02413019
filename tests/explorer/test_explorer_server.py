"""The live page's server: who may ask, how much, and that it outlives what strangers send."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

import shiftlens as sl
from shiftlens.errors import InputError

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from explorer.test_live_model import net
from shiftlens.explorer import Explorer, explore, guarding


@pytest.fixture(scope="module")
def live() -> Iterator[Explorer]:
    made = explore(sl.wrap(net(), mean=0.5, std=0.25, size=32), sl.load_images("digits", limit=12))
    made.start()
    yield made
    made.close()


def ask(
    live: Explorer, where: str = "", body: Any = None, token: bool = True, **headers: str
) -> tuple[int, str, dict[str, str]]:
    parts = urlsplit(live.address)
    to = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    path = (parts.path if token else "/") + where
    data = json.dumps(body) if isinstance(body, dict) else body
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    for _ in range(50):
        try:
            to.connect()
            break
        except ConnectionRefusedError:
            threading.Event().wait(0.1)
    to.putrequest("POST" if data is not None else "GET", path, skip_host="Host" in given)
    for name, value in given.items():
        to.putheader(name, value)
    if data is not None:
        raw = data.encode() if isinstance(data, str) else data
        to.putheader("Content-Length", str(len(raw)))
        to.endheaders()
        to.send(raw)
    else:
        to.endheaders()
    answer = to.getresponse()
    found = answer.status, answer.read().decode("utf-8", "replace"), {k.lower(): v for k, v in answer.getheaders()}
    to.close()
    return found


def alive(live: Explorer) -> None:
    status, text, _ = ask(live, "0/answer", {"image": "1"})
    assert status == 200
    assert text.count('"probability"') == 6


def test_the_address_itself_answers(live: Explorer) -> None:
    parts = urlsplit(live.address)
    assert parts.hostname == "127.0.0.1"
    assert len(parts.path) > 30
    status, text, headers = ask(live)
    assert status == 200
    assert "<title>shiftlens explore</title>" in text
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert json.loads(ask(live, "0/about")[1])["n_images"] == 12


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_other_hosts_and_origins_are_refused_in_one_line(live: Explorer, headers: dict[str, str]) -> None:
    for where, body in (("", None), ("0/answer", {"image": "1"}), ("0/photo", b"x")):
        status, text, _ = ask(live, where, body, **headers)
        assert status == 403
        assert text.count("\n") == 1
        assert "Traceback" not in text
    alive(live)


def test_the_page_s_own_origin_is_let_in(live: Explorer) -> None:
    parts = urlsplit(live.address)
    own = f"http://{parts.netloc}"
    assert ask(live, "0/answer", {"image": "1"}, Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
    assert ask(live, Host=f"localhost:{parts.port}")[0] == 200


@pytest.mark.parametrize(
    "path", ["", "0/about", "wrong/0/about", "%00/", "%c3%a9/", "//", "../", "0/answer?token=x", "a" * 5000]
)
def test_without_the_token_nothing_is_said(live: Explorer, path: str) -> None:
    status, text, _ = ask(live, path, token=False)
    assert status in (400, 403)
    assert "digits" not in text


TRICKS = [
    "0/image/..%2f..%2fetc%2fpasswd",
    "0/image/../../etc/passwd",
    "0/image/%2e%2e",
    "..%2f..",
    "0/image/",
    "0/image/1%00",
    "-1/about",
    "7/about",
    "99999999999999999999/about",
    "x",
]


@pytest.mark.parametrize("path", TRICKS)
def test_paths_lead_to_nothing_but_images(live: Explorer, path: str) -> None:
    status, text, _ = ask(live, path)
    assert status in (400, 404, 405)
    assert "root:" not in text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"image": 1}',
        b'{"image": "1", "dx": "1"}',
        b'{"image": "1", "dx": 1e99}',
        b'{"image": "1", "dx": 100000}',
        b'{"image": "1", "more": 1}',
        b'{"image": "1", "fill": "<script>"}',
        b'{"image": "1", "padding": "none such"}',
        b'{"image": "1", "paddings": []}',
        b'{"image": "1", "paddings": ["original", "zeros", "reflect"]}',
        b'{"image": "' + b"1" * 1000 + b'"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("where", ["0/answer", "0/sweep", "5/answer"])
def test_odd_questions_are_refused_in_one_line(live: Explorer, where: str, body: bytes) -> None:
    status, text, headers = ask(live, where, body)
    assert status in (400, 413)
    assert len(text.splitlines()) == 1
    assert headers["content-type"].startswith("text/plain")


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_photos_are_decoded_or_refused(live: Explorer) -> None:
    small = png(40, 40, (b"\x00" + b"\x80" * 40) * 40)
    status, text, _ = ask(live, "0/photo", small)
    assert status == 200
    name = json.loads(text)["image"]
    assert ask(live, "0/answer", {"image": name})[0] == 200
    assert json.loads(ask(live, f"0/image/{name}")[1])["uri"].startswith("data:image/png;base64,")
    # A picture with a page behind it is a picture, and is never sent back as it came.
    status, text, _ = ask(live, "0/photo", small + b"<script>alert(1)</script>")
    assert status == 200
    assert "script" not in ask(live, f"0/image/{json.loads(text)['image']}")[1]
    for data, said in (
        (png(20_000, 10_000, b"\x00" * 100), "too large to decode safely"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        (b"", "empty"),
        (small[:60], "the photo"),
    ):
        status, text, _ = ask(live, "0/photo", data)
        assert status == 400, data[:20]
        assert said in text
        assert len(text.splitlines()) == 1
    alive(live)


def test_an_upload_that_is_too_large_is_not_read(live: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = urlsplit(live.address)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as to:
        host = f"Host: {parts.netloc}\r\n"
        to.sendall(f"POST {parts.path}0/photo HTTP/1.1\r\n{host}Content-Length: 99999999999\r\n\r\n".encode())
        assert b" 413 " in to.recv(200)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as to:
        to.sendall(f"POST {parts.path}0/answer HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n".encode())
        answer = b""
        try:
            for _ in range(40):
                to.sendall(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
            answer = to.recv(200)
        except (ConnectionResetError, BrokenPipeError):
            answer = b" 413 "
        assert b" 413 " in answer
    alive(live)


def test_a_slow_client_is_let_go(live: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "MOST_SECONDS", 0.3)
    parts = urlsplit(live.address)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as to:
        head = f"POST {parts.path}0/photo HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 1000\r\n\r\n"
        to.sendall(head.encode() + b"x")
        assert b" 408 " in to.recv(200)
    alive(live)


def all_received(client: socket.socket) -> int:
    """How many bytes come until the server ends the connection."""
    n = 0
    with client, suppress(ConnectionResetError):
        while part := client.recv(2**16):
            n += len(part)
    return n


def test_a_client_that_sends_no_whole_head_or_fetches_no_answer_is_let_go(
    live: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "MOST_SECONDS", 0.3)
    parts = urlsplit(live.address)
    silent, slow, deaf = (socket.create_connection((parts.hostname, parts.port), timeout=30) for _ in range(3))
    slow.sendall(f"GET {parts.path} HTTP/1.1\r\nX-More:".encode())
    n_pages = 200
    deaf.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode() * n_pages)
    assert all_received(silent) == all_received(slow) == 0
    threading.Event().wait(1)
    assert 0 < all_received(deaf) < n_pages * len(ask(live)[1])
    alive(live)


def test_fifty_at_once_are_answered(live: Explorer) -> None:
    statuses: list[int] = []
    asking = [
        threading.Thread(
            target=lambda k=k: statuses.append(ask(live, "0/answer", {"image": str(k % 12), "dx": k % 9})[0])
        )
        for k in range(50)
    ]
    for each in asking:
        each.start()
    for each in asking:
        each.join(60)
    assert statuses == [200] * 50
    alive(live)


def test_fifty_idle_connections_do_not_stop_it(live: Explorer) -> None:
    parts = urlsplit(live.address)
    idle = [socket.create_connection((parts.hostname, parts.port), timeout=30) for _ in range(50)]
    for each in idle:
        each.sendall(b"GET / HTTP/1.1\r\n")
    alive(live)
    for each in idle:
        each.close()


def test_a_sweep_comes_row_by_row(live: Explorer) -> None:
    status, text, headers = ask(live, "0/sweep", {"image": "2", "fill": "wrap", "padding": "circular"})
    assert status == 200
    assert headers["content-type"].startswith("application/x-ndjson")
    first, *rows = map(json.loads, text.splitlines())
    assert len(rows) == len(first["dys"]) == 33
    assert {len(row) for row in rows} == {33}


def test_a_port_in_use_is_said(live: Explorer) -> None:
    port = urlsplit(live.address).port or 0
    with pytest.raises(InputError, match=rf"cannot listen on port {port} .*give another --port, or 0"):
        explore(sl.wrap(net(), mean=0, std=1, size=32), sl.load_images("digits", limit=2), port=port)


def test_answers_do_not_wait_for_the_other_side(live: Explorer) -> None:
    # asyncio turns Nagle's algorithm off only for sockets whose protocol is named; accepted ones take it from this one.
    assert live._socket.proto == socket.IPPROTO_TCP
