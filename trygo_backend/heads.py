"""Pictures asked for again: what Django said about one is said once more, as long as the file is the same.

Of the time in which a picture of 50 KB is answered, half goes into Django's requests, responses, signals and
middleware (measured, benchmarks/README.md), and it comes to the same status line and headers every time. So the head
of an answer is remembered here, in front of Django, by everything in the request that it can depend on. Nothing is
decided here: a request is answered from memory only where Django has answered the same one, and the file is opened
and its entity tag compared each time, so a picture that was deleted or replaced is Django's matter again. Whatever is
out of the ordinary is too: other methods, ranges, cookies, tokens, origins, and any header that is not listed below.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from django.urls import reverse

from images.local_files import local_path
from images.media import BLOCK_SIZE, LocalPart, StoredFile, find_file
from images.models import image_storage
from images.storage import ROOT, is_plain_path

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]
Question = tuple[str | None, ...]

#: What an answer may depend on. A request without one of them is another one than with it.
ASKED = (
    "PATH_INFO",
    "SCRIPT_NAME",
    "SERVER_NAME",
    "SERVER_PORT",
    "wsgi.url_scheme",
    "HTTP_HOST",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    # Behind a proxy (TRUST_PROXY_HEADERS) these say which scheme and host were asked for.
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
)
#: Headers that no answer about a picture depends on.
IGNORED = frozenset(
    {
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_ENCODING",
        "HTTP_ACCEPT_LANGUAGE",
        "HTTP_CACHE_CONTROL",
        "HTTP_CONNECTION",
        "HTTP_DNT",
        "HTTP_PRAGMA",
        "HTTP_PRIORITY",
        "HTTP_REFERER",
        "HTTP_SAVE_DATA",
        "HTTP_SEC_CH_UA",
        "HTTP_SEC_CH_UA_MOBILE",
        "HTTP_SEC_CH_UA_PLATFORM",
        "HTTP_SEC_FETCH_DEST",
        "HTTP_SEC_FETCH_MODE",
        "HTTP_SEC_FETCH_SITE",
        "HTTP_SEC_FETCH_STORAGE_ACCESS",
        "HTTP_SEC_FETCH_USER",
        "HTTP_SEC_GPC",
        "HTTP_UPGRADE_INSECURE_REQUESTS",
        "HTTP_USER_AGENT",
        "HTTP_VIA",
        "HTTP_X_FORWARDED_FOR",
        "HTTP_X_REAL_IP",
        "HTTP_X_REQUEST_ID",
    }
)
_KNOWN = IGNORED.union(ASKED)

#: How many heads are remembered, and up to which length of a question, in characters: mostly some four megabytes.
MOST, LONGEST = 2048, 1000


class Head(NamedTuple):
    """What Django said, and of which file.

    Attributes:
        etag: The file's, with its quotes.
        status: The status line, `200 OK` or `304 Not Modified`.
        headers: In Django's order.
    """

    etag: str
    status: str
    headers: Headers


class RememberedHeads:
    """A WSGI application around another one.

    Args:
        application: The project's. Its URLs are loaded here and now.
    """

    def __init__(self, application: Callable[[Environ, StartResponse], Iterable[bytes]]) -> None:
        self._application = application
        self._prefix = reverse("images:media", kwargs={"path": ""})
        self._heads: dict[Question, Head] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer from memory, or have it answered and remember."""
        question = self._question(environ)
        if question is None:
            return self._application(environ, start_response)
        if (head := self._heads.get(question)) and (file := self._unchanged(environ, head)):
            return _replay(environ, start_response, head, file)
        return self._ask(question, environ, start_response)

    def _question(self, environ: Environ) -> Question | None:
        """Everything that the answer depends on; `None` for what is not to be remembered."""
        if environ["REQUEST_METHOD"] != "GET" or not environ.get("PATH_INFO", "").startswith(self._prefix):
            return None
        if environ.get("QUERY_STRING") or environ.get("CONTENT_LENGTH") or "wsgi.file_wrapper" not in environ:
            return None
        if any(name.startswith("HTTP_") and name not in _KNOWN for name in environ):
            return None
        question = tuple(map(environ.get, ASKED))
        return question if sum(len(text) for text in question if text) <= LONGEST else None

    def _unchanged(self, environ: Environ, head: Head) -> StoredFile | None:
        """The file that a head is about, if it is still there and the same."""
        path = environ["PATH_INFO"].removeprefix(self._prefix)
        if not is_plain_path(path):
            return None
        try:
            file = find_file(image_storage(), path)
        except Exception:  # noqa: BLE001  (a storage may be anybody's code; Django meets the same, and says so)
            return None
        if file is not None and file.etag != head.etag:
            file.close()
            return None
        return file

    def _ask(self, question: Question, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        said: list[tuple[str, Headers]] = []

        def listen(status: str, headers: Headers, *rest: Any) -> Any:
            said.append((status, list(headers)))
            return start_response(status, headers, *rest)

        answer = self._application(environ, listen)
        status, headers = said[-1] if said else ("", [])
        is_file = status.startswith("200 ") and isinstance(getattr(answer, "filelike", None), LocalPart)
        # Whether a file of another storage is the same cannot be told without asking that storage, as Django does.
        if is_file or (status.startswith("304 ") and local_path(image_storage(), ROOT) is not None):
            self._remember(question, status, headers)
        return answer

    def _remember(self, question: Question, status: str, headers: Headers) -> None:
        etag = next((value for name, value in headers if name.lower() == "etag"), "")
        with self._lock:
            if len(self._heads) >= MOST and question not in self._heads:
                del self._heads[next(iter(self._heads))]
            self._heads[question] = Head(etag=etag, status=status, headers=headers)


def _replay(environ: Environ, start_response: StartResponse, head: Head, file: StoredFile) -> Iterable[bytes]:
    with_content = head.status.startswith("200 ")
    part = file.part(0, file.size) if with_content else None
    file.close()
    start_response(head.status, list(head.headers))
    if part is None:
        return []
    answer: Iterable[bytes] = environ["wsgi.file_wrapper"](part, BLOCK_SIZE)
    return answer
