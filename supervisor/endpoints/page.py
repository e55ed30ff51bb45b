"""The status page: files of this package, and headers that let the browser load nothing else.

The rule: what rooms and agents are called is text.  The page builds its elements by hand, and the policy
forbids scripts, styles and connections from anywhere but here, so that a mistake there stays harmless.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from aiohttp import web

FILES = {
    "/": ("index.html", "text/html"),
    "/static/page.js": ("page.js", "text/javascript"),
    "/static/page.css": ("page.css", "text/css"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "livekit-supervisor",
}


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For every answer of the HTTP server, errors included."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")


class Page:
    """The files, read once."""

    def __init__(self) -> None:
        folder = resources.files("supervisor.endpoints") / "static"
        self._files = {path: (folder / name).read_bytes() for path, (name, _) in FILES.items()}
        self._tags = {path: hashlib.sha256(body).hexdigest()[:16] for path, body in self._files.items()}

    def routes(self) -> list[web.RouteDef]:
        return [web.get(path, self._serve) for path in FILES]

    async def _serve(self, request: web.Request) -> web.Response:
        path = request.path
        tag = self._tags[path]
        headers = {"Cache-Control": "no-cache", "ETag": f'"{tag}"'}
        if any(known.value == tag for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=self._files[path], content_type=FILES[path][1], charset="utf-8", headers=headers
        )
