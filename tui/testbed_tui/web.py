"""The screen in a browser: textual-serve, behind a token that every request must carry."""

from __future__ import annotations

import hmac
import secrets
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import LabError, UsageError

if TYPE_CHECKING:
    from aiohttp import web

PAGE = Path(__file__).with_name("page.html")

Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


def serve(words: Sequence[str], host: str, port: int) -> None:
    """Serve ``testbed tui`` with these words until interrupted.

    Whoever opens the page gets a screen of their own, with all that an operator may do; so nobody does without the
    token. Raises UsageError where textual-serve is not installed, LabError where the port cannot be had.
    """
    try:
        from aiohttp import web

        server, address = _server(shlex.join([sys.executable, "-m", "testbed", "tui", *words]), host, port)
    except ImportError as error:
        raise UsageError("--web needs textual-serve, which is not installed", "pip install 'testbed[web]'") from error

    def say(*_: object) -> None:
        print(address, flush=True)  # noqa: T201  this is the command's output, once the page can be had

    try:
        web.run_app(server._make_app(), host=host, port=port, print=say)
    except OSError as error:
        raise LabError(f"cannot serve on {host}:{port}: {error.strerror}", "choose another port") from error


POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "img-src 'self' data:; connect-src 'self' ws: wss:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
"""What a browser may load for the page: ours alone. A lab may have no way to others, who need not know either."""


def guard(token: str, cookie: str) -> Any:
    """A middleware that lets in who has the token: in the address once, in a cookie from then on; see `POLICY` too."""
    from aiohttp import web

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.query.get("token")
        if given is not None and request.path == "/" and hmac.compare_digest(given.encode(), token.encode()):
            answer = web.HTTPFound("/")  # so that the token does not stay in the address bar
            answer.set_cookie(cookie, token, httponly=True, samesite="Strict")
            raise answer
        if not hmac.compare_digest(request.cookies.get(cookie, "").encode(), token.encode()):
            raise web.HTTPForbidden(text="open the address that `testbed tui --web` printed, with its token\n")
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != request.host:
            raise web.HTTPForbidden(text="this page is not of this server\n")
        answered = await handler(request)
        if not answered.prepared:  # a socket has its headers already
            answered.headers["Content-Security-Policy"] = POLICY
            answered.headers["Referrer-Policy"] = "no-referrer"
        return answered

    return check


def _server(command: str, host: str, port: int) -> tuple[Any, str]:
    """The server, and the address of its page."""
    from aiohttp import web
    from textual_serve.server import Server

    token = secrets.token_urlsafe(24)
    shown = f"[{host}]" if ":" in host else host

    class Guarded(Server):
        """textual-serve's server with the guard in front of all its routes."""

        async def _make_app(self) -> web.Application:
            app: web.Application = await super()._make_app()
            app.middlewares.append(guard(token, f"testbed-{port}"))
            return app

        async def handle_index(self, request: web.Request) -> web.StreamResponse:  # noqa: ARG002  one page for all
            """Our page: textual-serve's asks others for a font, and works at one address only."""
            return web.FileResponse(PAGE)

        async def on_startup(self, app: web.Application) -> None:
            """Say nothing; see `serve`."""

    return Guarded(command, host=host, port=port, title="testbed"), f"http://{shown}:{port}/?token={token}"
