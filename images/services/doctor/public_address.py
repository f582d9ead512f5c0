"""The public address: does the world get what the storage holds, and no longer than it holds it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from django.urls import NoReverseMatch, reverse

from ...addresses import absolute_url
from ...conf import conf
from ...exceptions import StorageError
from .configuration import PUBLIC_URL_IDS, from_checks
from .findings import Finding, attention, broken, fine
from .stores import probe_file

PUBLIC_URL = "Public address"

#: Seconds to connect, and between two pieces of the answer.
_TIMEOUT = (5, 10)

_STEPS = {
    400: "Put the host of PUBLIC_URL into ALLOWED_HOSTS.",
    401: "Let /media/ through without credentials: <img src> cannot send any.",
    403: "Let /media/ through without credentials: <img src> cannot send any.",
    404: "Start the server with the same STORAGE_ROOT as this command, and forward /media/ to it.",
}
_OTHER_STEP = "Look at the logs of the server and of whatever stands in front of it."
_REACH_STEP = (
    "Start the server, and look at PUBLIC_URL, its DNS entry, certificate and proxy. Where this machine alone cannot "
    "reach its own public address, run the command from a machine that can."
)


def examine_public_url(*, fetch: bool) -> Iterator[Finding]:
    """What `PUBLIC_URL` is set to; with `fetch`, whether a probe file can be fetched through it."""
    found = list(from_checks(PUBLIC_URL, ids=PUBLIC_URL_IDS))
    yield from found
    base = conf.public_url
    try:
        reverse("images:media", kwargs={"path": "probe"})
    except NoReverseMatch:
        step = 'Add to the project\'s urls.py: path("", include("images.urls"))'
        yield broken(PUBLIC_URL, "The app's addresses are not plugged into the project.", step)
        return
    if fetch and base:
        yield from _fetch_probe(base)
    elif fetch:
        step = "Set PUBLIC_URL, for example PUBLIC_URL=https://images.example.com"
        yield broken(PUBLIC_URL, "Nothing can be fetched, because PUBLIC_URL is not set.", step)
    elif not found:
        told = (
            f"It is {base}; --public-url fetches a probe file through it."
            if base
            else "The request's own host is used."
        )
        yield fine(PUBLIC_URL, told)


def _fetch_probe(base: str) -> Iterator[Finding]:
    try:
        with probe_file() as probe:
            url = absolute_url(reverse("images:media", kwargs={"path": probe.name.partition("/")[2]}))
            answer = _get(url, len(probe.data))
            problem = _problem(answer, probe.data)
        if problem:
            yield broken(PUBLIC_URL, *problem)
        elif _get(url, 0).status == requests.codes.ok:
            sentence = (
                f"{base} still serves a probe file that was deleted: something in front of the server caches it."
            )
            yield attention(PUBLIC_URL, sentence, "Let the proxy or CDN respect Cache-Control: no-cache for /media/.")
        else:
            yield fine(PUBLIC_URL, f"A probe file was fetched through {base}, and is gone from there again.")
    except StorageError as err:
        yield broken(PUBLIC_URL, f"There is no probe file to fetch: {err.message}", "See what is said about Storage.")
    except requests.RequestException as err:
        yield broken(PUBLIC_URL, f"{base} could not be reached ({type(err).__name__}).", _REACH_STEP)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    content_type: str
    location: str
    body: bytes


def _get(url: str, length: int) -> _Answer:
    """Fetch up to one byte more than `length`, following no redirect: callers are given this very address."""
    with requests.get(url, timeout=_TIMEOUT, allow_redirects=False, stream=True) as response:
        body = b""
        for piece in response.iter_content(64 * 1024):
            body += piece
            if len(body) > length:
                break
        headers = response.headers
        kind = headers.get("Content-Type", "").partition(";")[0].strip()
        return _Answer(
            status=response.status_code, content_type=kind, location=headers.get("Location", ""), body=body
        )


def _problem(answer: _Answer, data: bytes) -> tuple[str, str] | None:
    """What is wrong with the answer, and the next step; `None` where it is right."""
    if 300 <= answer.status < 400:
        target = urlsplit(answer.location)
        where = f"{target.scheme}://{target.netloc}" if target.netloc else "another path"
        step = "Set PUBLIC_URL to the address that answers by itself: every picture would cost a redirect."
        return f"The public address redirects to {where}.", step
    if answer.status != requests.codes.ok:
        return f"The public address answered {answer.status}.", _STEPS.get(answer.status, _OTHER_STEP)
    if answer.body != data:
        return "The public address answered with other bytes than the storage holds.", _STEPS[404]
    if answer.content_type != "image/png":
        step = "Let the server of /media/ send the types of image files (nginx: include mime.types)."
        return f"A PNG is served as {answer.content_type or 'no type'!r}.", step
    return None
