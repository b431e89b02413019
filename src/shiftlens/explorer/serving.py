"""The live page's server: Starlette on loopback, a handful of addresses, everything behind a token."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shiftlens.data.images import ImageSet
from shiftlens.errors import InputError, ShiftlensError
from shiftlens.explorer.guarding import MOST_BYTES, Guard, RequestError, body_of
from shiftlens.explorer.live_model import ORIGINAL, LiveModel
from shiftlens.naming import one_line
from shiftlens.reporting.encoding import packed, palette, png_uri
from shiftlens.reporting.page import policy, web

if TYPE_CHECKING:
    from torch import nn

    from shiftlens.models.loading import Model

SCRIPTS = ("heatmap.js", "moved_picture.js", "explore.js")
MOST_CONNECTIONS = 64
NEEDED = "the live page needs two packages more: pip install shiftlens[explore]"


class _Question(BaseModel):
    """What the page may ask in one request."""

    model_config = ConfigDict(strict=True, extra="forbid")

    image: str = Field(max_length=40)
    dx: int = Field(default=0, ge=-(2**14), le=2**14)
    dy: int = Field(default=0, ge=-(2**14), le=2**14)
    fill: str = Field(default="black", max_length=100)
    padding: str = Field(default=ORIGINAL, max_length=40)
    layer: str | None = Field(default=None, max_length=300)


@dataclass
class Explorer:
    """A live page that is being served.

    Attributes
    ----------
    address
        What to open: `http://127.0.0.1:PORT/TOKEN/`.
    """

    address: str
    _server: Any = field(repr=False)
    _socket: socket.socket = field(repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)

    def run(self) -> None:
        """Serve until the process is interrupted."""
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Serve in a thread, as notebooks do; see `close`."""
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(10)
        self._socket.close()


def explore(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str = "digits",
    *,
    port: int = 0,
    device: str = "auto",
) -> Explorer:
    """Make a live page on this machine: the model answers while an image is dragged.

    Parameters
    ----------
    model, images
        As everywhere: a `Model`, an `nn.Module` or a spec; an `ImageSet` or a spec.
    port
        On 127.0.0.1; 0 takes a free one.
    device
        `auto`, `cpu` or `cuda`.

    Returns
    -------
    Explorer
        `.address` is what to open; `.run()` serves until interrupted, `.start()` in a thread until `.close()`.

    Raises
    ------
    InputError
        Starlette or uvicorn is not installed, the port is taken, or the model is no classifier of these images.
    """
    refuse_without_server()
    import uvicorn

    live = LiveModel(model, images, device=device)
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(f"cannot listen on port {port} ({one_line(error)}): give another --port, or 0") from None
    token = secrets.token_urlsafe(24)
    config = uvicorn.Config(
        Guard(application(live), token),
        log_level="critical",
        access_log=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
        server_header=False,
        lifespan="off",
        ws="none",
    )
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/{token}/"
    return Explorer(address, uvicorn.Server(config), listening)


def refuse_without_server() -> None:
    """Raise `InputError` where Starlette or uvicorn is not installed."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise InputError(NEEDED)


def application(live: LiveModel) -> Any:
    """The ASGI application: the page, what it offers, images, answers, photos and small sweeps."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    text, allowed = page()
    safe = {
        "content-security-policy": allowed,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        "cross-origin-resource-policy": "same-origin",
    }

    def as_json(values: Any) -> Response:
        return Response(json.dumps(values), media_type="application/json", headers=safe)

    async def show(request: Request) -> Response:
        return Response(text, media_type="text/html", headers=safe)

    async def about(request: Request) -> Response:
        return as_json(live.about() | {"palette": packed(palette("viridis"))})

    async def image(request: Request) -> Response:
        pixels = await run_in_threadpool(live.pixels, request.path_params["name"])
        colour = pixels.repeat(3, axis=0) if len(pixels) == 1 else pixels
        return as_json({"uri": png_uri(colour.transpose(1, 2, 0))})

    async def answer(request: Request) -> Response:
        asked = await question(request)
        return as_json(await run_in_threadpool(lambda: live.answer(**asked.model_dump())))

    async def photo(request: Request) -> Response:
        data = await body_of(request, MOST_BYTES)
        return as_json({"image": await run_in_threadpool(live.add, data)})

    async def sweep(request: Request) -> Response:
        asked = await question(request)
        await run_in_threadpool(live.refuse_unknown, asked.image, asked.fill, asked.padding)
        dys, dxs = live.grid()

        def lines() -> Iterator[str]:
            yield json.dumps({"dys": dys, "dxs": dxs}) + "\n"
            for row in live.sweep(asked.image, fill=asked.fill, padding=asked.padding):
                yield json.dumps(row) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson", headers=safe)

    async def question(request: Request) -> _Question:
        try:
            return _Question.model_validate_json(await body_of(request, 2**16))
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False)[0]
            raise InputError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ")) from None

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, RequestError) else 400
        return PlainTextResponse(one_line(error, 400), status_code=status, headers=safe)

    routes = [
        Route("/", show),
        Route("/about", about),
        Route("/image/{name}", image),
        Route("/answer", answer, methods=["POST"]),
        Route("/photo", photo, methods=["POST"]),
        Route("/sweep", sweep, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={ShiftlensError: refused})


def page() -> tuple[str, str]:
    """The page, and the policy that it is sent with: its own scripts, its own origin, nothing else."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    scripts = [web(name) for name in SCRIPTS]
    environment = Environment(loader=FunctionLoader(web), autoescape=True, undefined=StrictUndefined)
    styles = Markup("\n".join(web(name) for name in ("report.css", "stage.css", "explore.css")))
    text = environment.get_template("explore.html.j2").render(style=styles, scripts=[Markup(each) for each in scripts])
    return text, f"{policy(scripts)}; connect-src 'self'; frame-ancestors 'none'"
