"""The live page's server: Starlette on loopback, a handful of addresses, everything behind a token."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shiftlens.data.images import ImageSet
from shiftlens.errors import InputError, ShiftlensError
from shiftlens.explorer.fitting_images import CLASSES, SHIPPED, sample_for, shipped
from shiftlens.explorer.guarding import MOST_BYTES, Guard, Patience, RequestError, body_of
from shiftlens.explorer.live_model import ORIGINAL, LiveModel
from shiftlens.explorer.readings import framed
from shiftlens.models.loading import Model, as_model
from shiftlens.naming import one_line
from shiftlens.reporting.encoding import png_uri
from shiftlens.reporting.page import policy, web

if TYPE_CHECKING:
    from torch import nn

SCRIPTS = (
    "heatmap.js", "moved_picture.js", "way_chart.js", "live_answer.js", "stage_parts.js", "flip_map.js", "explore.js"
)  # fmt: skip
STYLES = ("report.css", "stage.css", "explore.css")
MOST_CONNECTIONS = 64
NEEDED = "the live page needs two packages more: pip install 'shiftlens[explore]'"


class _Asked(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    image: str = Field(max_length=40)
    fill: str = Field(default="black", max_length=100)


class _Question(_Asked):
    """What the page asks under a drag."""

    dx: int = Field(default=0, ge=-(2**14), le=2**14)
    dy: int = Field(default=0, ge=-(2**14), le=2**14)
    paddings: list[str] = Field(default=[ORIGINAL], min_length=1, max_length=2)
    layer: str | None = Field(default=None, max_length=300)


class _SweepQuestion(_Asked):
    padding: str = Field(default=ORIGINAL, max_length=40)


_T = TypeVar("_T", bound=_Asked)


class Choices:
    """Models by name, each loaded when it is first chosen; the first at once."""

    def __init__(self, opened: Mapping[str, Callable[[], LiveModel]]) -> None:
        self.names = list(opened)
        self._opened = list(opened.values())
        self._live: dict[int, LiveModel] = {}
        self._lock = threading.Lock()
        self.at(0)

    def at(self, k: int) -> LiveModel:
        """The `k`-th; `InputError` where there is none."""
        if not 0 <= k < len(self.names):
            raise InputError(f"expected a model from 0 to {len(self.names) - 1}, got {k}")
        with self._lock:
            if k not in self._live:
                self._live[k] = self._opened[k]()
            return self._live[k]


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
    model: Model | nn.Module | str | Path | None = None,
    images: ImageSet | str | None = None,
    *,
    port: int = 0,
    device: str = "auto",
    data_root: Path | None = None,
) -> Explorer:
    """Make a live page on this machine: the model answers while an image is dragged.

    Parameters
    ----------
    model, images
        As everywhere: a `Model`, an `nn.Module` or a spec; an `ImageSet` or a spec. Without a model the page offers the
        shipped ones; without images it shows some that fit the model, or says that they do not
        (`fitting_images.sample_for`).
    port
        On 127.0.0.1; 0 takes a free one.
    device
        `auto`, `cpu` or `cuda`.
    data_root
        Where CIFAR-10 is looked for when no images are given.

    Returns
    -------
    Explorer
        `.address` is what to open; `.run()` serves until interrupted, `.start()` in a thread until `.close()`.

    Raises
    ------
    InputError
        Starlette or uvicorn is not installed, the port is taken, or the model has no live view.
    """
    refuse_without_server()
    # asyncio turns delayed sending off only where the protocol is named; without, each answer comes 40 ms late.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(f"cannot listen on port {port} ({one_line(error)}): give another --port, or 0") from None
    try:
        return _serving(_choices(model, images, device, data_root), listening)
    except BaseException:
        listening.close()
        raise


def _choices(
    model: Model | nn.Module | str | Path | None, images: ImageSet | str | None, device: str, data_root: Path | None
) -> Choices:
    def opened(which: Model | nn.Module | str | Path, shown: ImageSet | str | None) -> LiveModel:
        if shown is not None:
            return LiveModel(which, shown, device=device)
        loaded = as_model(which, device=device)
        sample, note = sample_for(loaded, data_root)
        return LiveModel(loaded, sample, device=device, note=note)

    def opened_shipped(name: str) -> LiveModel:
        loaded = as_model(f"pretrained:{name}", device=device)
        loaded = loaded.with_facts(class_names=CLASSES.get(name, loaded.class_names))
        return opened(loaded, images or SHIPPED[name] or None)

    if model is not None:
        return Choices({"": partial(opened, model, images)})
    names = list(SHIPPED) if images is not None else shipped(data_root)
    return Choices({name: partial(opened_shipped, name) for name in names})


def _serving(choices: Choices, listening: socket.socket) -> Explorer:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Watched(H11Protocol):
        """Ends connections on which nothing happens."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            Patience(self)

    token = secrets.token_urlsafe(24)
    config = uvicorn.Config(
        Guard(application(choices), token),
        http=Watched,
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


def application(choices: Choices) -> Any:
    """The ASGI application: the page, and for each model what it offers, images, answers, photos and small sweeps."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    text, allowed = page(choices.names)
    safe = {
        "content-security-policy": allowed,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        "cross-origin-resource-policy": "same-origin",
    }

    async def live_of(request: Request) -> LiveModel:
        return await run_in_threadpool(choices.at, request.path_params["model"])

    def as_json(values: Any) -> Response:
        return Response(json.dumps(values), media_type="application/json", headers=safe)

    async def show(request: Request) -> Response:
        return Response(text, media_type="text/html", headers=safe)

    async def about(request: Request) -> Response:
        live = await live_of(request)
        told = await run_in_threadpool(live.about)
        return as_json(told)

    async def image(request: Request) -> Response:
        live = await live_of(request)
        pixels = await run_in_threadpool(live.shown.as_colour, request.path_params["name"])
        return as_json({"uri": png_uri(pixels)})

    async def answer(request: Request) -> Response:
        live = await live_of(request)
        asked = await read(request, _Question)
        found = await run_in_threadpool(lambda: live.answers(**asked.model_dump()))
        body = framed({"dx": asked.dx, "dy": asked.dy}, found)
        return Response(body, media_type="application/octet-stream", headers=safe)

    async def photo(request: Request) -> Response:
        live = await live_of(request)
        data = await body_of(request, MOST_BYTES)
        return as_json({"image": await run_in_threadpool(live.shown.add, data)})

    async def sweep(request: Request) -> Response:
        live = await live_of(request)
        asked = await read(request, _SweepQuestion)
        await run_in_threadpool(live.refuse_unknown, asked.image, asked.fill, asked.padding)
        dys, dxs = live.grid()

        def lines() -> Iterator[str]:
            yield json.dumps({"dys": dys, "dxs": dxs}) + "\n"
            for row in live.sweep(asked.image, fill=asked.fill, padding=asked.padding):
                yield json.dumps(row) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson", headers=safe)

    async def read(request: Request, question: type[_T]) -> _T:
        try:
            return question.model_validate_json(await body_of(request, 2**16))
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False)[0]
            raise InputError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ")) from None

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, RequestError) else 400
        return PlainTextResponse(one_line(error, 400), status_code=status, headers=safe)

    routes = [
        Route("/", show),
        Route("/{model:int}/about", about),
        Route("/{model:int}/image/{name}", image),
        Route("/{model:int}/answer", answer, methods=["POST"]),
        Route("/{model:int}/photo", photo, methods=["POST"]),
        Route("/{model:int}/sweep", sweep, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={ShiftlensError: refused})


def page(models: list[str]) -> tuple[str, str]:
    """The page, and the policy that it is sent with: its own scripts, its own origin, nothing else."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    scripts = [web(name) for name in SCRIPTS]
    environment = Environment(loader=FunctionLoader(web), autoescape=True, undefined=StrictUndefined)
    style = Markup("\n".join(map(web, STYLES)))
    text = environment.get_template("explore.html.j2").render(
        style=style, scripts=[Markup(each) for each in scripts], models=models
    )
    return text, f"{policy(scripts)}; connect-src 'self'; frame-ancestors 'none'"
