"""The files of the page for browsers, from the package, by fixed paths.

They hold no data, and so need no token. A request is looked up among these paths; nothing of it
reaches the file system.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

from .pages import Page, Reply, fixed

# What a request for another file of the page begins with.
ASSETS = "/assets/"
_FOLDER = "page"
# Paths other than /assets/NAME.
_PATHS = {"index.html": "/", "favicon.svg": "/favicon.svg"}
# Files with other suffixes are not served.
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Scripts, styles and images of this server only, connections to it only; no inline script or style,
# no frame around the page, and no text that is parsed as HTML.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    # A browser asks each time, with the ETag of what it has, so that an upgrade shows at once.
    ("Cache-Control", "no-cache"),
)
# Hexadecimal digits of the hash of a file in its ETag.
_TAG_DIGITS = 32


def asset_pages() -> dict[str, Page]:
    """Read the files of the page; return them by path. Raises OSError."""
    package = str(__package__).rpartition(".")[0]
    pages = {}
    for file in files(package).joinpath(_FOLDER).iterdir():
        content_type = _TYPES.get(file.name.rpartition(".")[2])
        if content_type is not None and file.is_file():
            path = _PATHS.get(file.name, ASSETS + file.name)
            pages[path] = fixed(asset(content_type, file.read_bytes()), is_public=True)
    return pages


def asset(content_type: str, content: bytes) -> Reply:
    """Return the reply with the content of a file."""
    tag = sha256(content).hexdigest()[:_TAG_DIGITS]
    return Reply(200, content_type, content, (*_HEADERS, ("ETag", f'"{tag}"')))
