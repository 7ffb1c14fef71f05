"""The web server: Gradio inside a FastAPI parent that keeps other sites and hosts out."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from app._gradio import gr
from app.handlers import Handlers
from app.layout import build
from app.theme import CSS, HEAD, theme
from app.warmup import WarmUp
from explorer.store import Store

MAX_UPLOAD = "500mb"
QUEUE = 64

# connect-src keeps the viewer from asking the network for its newest release; `data:` is where its
# wasm comes from; Gradio's own scripts are inline and its templates are compiled in the page.
POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "connect-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:",
        "style-src 'self' 'unsafe-inline'",
        "object-src 'none'",
        "base-uri 'self'",
        "frame-ancestors 'self'",
    )
)


def create(
    warm: WarmUp, *, store: Store, downloads: Path, hosts: Sequence[str], origins: Sequence[str]
) -> FastAPI:
    """The application.

    Args:
        warm: told when the first page was served.
        store: cache of latents, features and reconstructions.
        downloads: folder for files made for download.
        hosts: values of the Host header that are answered.
        origins: sites whose scripts may read answers.
    """
    parent = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    parent.add_middleware(
        CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"]
    )
    parent.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @parent.middleware("http")
    async def guard(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await proceed(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        if request.url.path == "/":
            warm.first_page.set()
        return response

    @parent.get("/ready")
    async def ready() -> JSONResponse:
        return JSONResponse(warm.state(), headers={"Cache-Control": "no-store"})

    @parent.get("/static/plotly.min.js")
    async def plotly() -> FileResponse:
        return FileResponse(_plotly(), media_type="text/javascript")

    page = build(Handlers(store, downloads))
    page.queue(max_size=QUEUE)
    mounted: FastAPI = gr.mount_gradio_app(
        parent,
        page,
        path="/",
        theme=theme(),
        css=CSS,
        head=HEAD,
        show_error=False,
        max_file_size=MAX_UPLOAD,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        ssr_mode=False,
    )
    return mounted


class _Server(uvicorn.Server):
    """Says where it serves, and starts loading models, once it really does."""

    def __init__(self, config: uvicorn.Config, warm: WarmUp, url: str) -> None:
        super().__init__(config)
        self._warm = warm
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"Emerge3D is at {self._url}", flush=True)
            self._warm.start()


def serve(*, host: str, port: int, allowed_hosts: Sequence[str] = ()) -> int:
    """Serve until interrupted.

    Returns:
        0, or 1 if the address cannot be used.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        print(
            f"{host}:{port} cannot be used ({error.strerror}): is Emerge3D already running "
            "there? Choose another port with --port.",
            file=sys.stderr,
        )
        return 1
    port = listening.getsockname()[1]
    names = _names(host, allowed_hosts)
    with tempfile.TemporaryDirectory(prefix="emerge3d-") as downloads:
        warm = WarmUp()
        app: Any = create(
            warm,
            store=Store(),
            downloads=Path(downloads),
            hosts=names,
            origins=[f"http://{name}:{port}" for name in names],
        )
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        shown = "127.0.0.1" if host == "0.0.0.0" else host
        try:
            _Server(config, warm, f"http://{shown}:{port}").run(sockets=[listening])
        finally:
            warm.end()
    return 0


def _names(host: str, allowed: Sequence[str]) -> list[str]:
    """Host names that the page may be asked for under."""
    names = ["127.0.0.1", "localhost", *allowed]
    if host == "0.0.0.0":
        names.append(socket.gethostname())
    elif host not in names:
        names.append(host)
    return names


def _plotly() -> Path:
    from importlib.util import find_spec

    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("plotly is not installed")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"
