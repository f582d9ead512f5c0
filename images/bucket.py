"""Buckets of S3 and its like, through the public parts of django-storages and boto3.

Django's Storage API asks for a file's existence, size, time and content one by one, and django-storages reads files
whole. A bucket says all of it in one answer, sends parts, and lists a thousand files with their sizes at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.files.storage import Storage

#: Bytes that a key may have; a bucket calls a longer one a bad request.
LONGEST_KEY = 1024
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")
#: What a bucket says of a key that is not there; the second if nobody has allowed the asker to list it.
_NOT_THERE, _REFUSED = {"404", "NoSuchKey"}, {"403", "AccessDenied", "Forbidden"}
_UNKNOWN_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_PERMISSIONS = {
    "save": "s3:PutObject on",
    "read": "s3:GetObject on",
    "look": "s3:GetObject and s3:ListBucket on",
    "remove": "s3:DeleteObject on",
    "list": "s3:ListBucket for",
}


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """A file as a listing names it.

    Attributes:
        name: In the storage.
        modified: When it was last written; aware.
    """

    name: str
    modified: datetime


@dataclass(frozen=True, kw_only=True)
class Content:
    """A bucket's answer to a request for a file.

    Attributes:
        size: The whole file's, in bytes.
        etag: With its quotes.
        modified: When the file was last written; aware.
        start: The first byte that is sent.
        length: How many bytes are sent.
        body: The stream, to be closed by the caller; `None` if nothing is sent.
    """

    size: int
    etag: str
    modified: datetime | None
    start: int = 0
    length: int = 0
    body: Any = None

    @property
    def is_part(self) -> bool:
        """Whether less than the whole file is sent."""
        return self.length < self.size


class Bucket:
    """The bucket of a storage. Every method is one call, or one for each thousand names; all raise boto3's errors.

    Args:
        storage: A `storages.backends.s3.S3Storage`.
    """

    def __init__(self, storage: Any) -> None:
        from boto3.s3.transfer import S3Transfer

        bucket = storage.bucket
        self._name = bucket.name
        self._client = bucket.meta.client  # clients may be shared by threads
        self._location = str(storage.location or "").strip("/")
        parameters = storage.get_object_parameters("any")
        self._parameters = {key: parameters[key] for key in S3Transfer.ALLOWED_DOWNLOAD_ARGS if key in parameters}

    def head(self, name: str) -> Content:
        """What is known of a file."""
        return _content(self._client.head_object(**self._file(name)))

    def get(self, name: str, *, byte_range: str = "", unless: str = "") -> Content:
        """A file, or the part that `byte_range` names, unless its entity tag is `unless`."""
        wanted = {"Range": byte_range, "IfNoneMatch": unless}
        answer = self._client.get_object(**self._file(name), **{key: text for key, text in wanted.items() if text})
        return _content(answer, body=answer["Body"])

    def list(self, prefix: str, *, after: str = "") -> Iterator[list[ListedFile]]:
        """Every file whose name begins with `prefix`, in the order of their bytes, page by page.

        Args:
            prefix: With a slash at its end, a folder.
            after: A name; only those behind it are listed.
        """
        start = {"StartAfter": self._key(after)} if after else {}
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._name, Prefix=self._key(prefix), **start):
            yield [self._listed(entry) for entry in page.get("Contents", ()) if not entry["Key"].endswith("/")]

    def _listed(self, entry: Mapping[str, Any]) -> ListedFile:
        key = entry["Key"]
        name = key[len(self._location) + 1 :] if self._location else key
        return ListedFile(name=name, modified=entry["LastModified"])

    def _file(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._name, "Key": self._key(name), **self._parameters}

    def _key(self, name: str) -> str:
        return f"{self._location}/{name}" if self._location else name


def bucket_of(storage: Storage) -> Bucket | None:
    """The bucket of a storage, or `None` if the storage is of another kind."""
    module = sys.modules.get("storages.backends.s3")  # nothing is imported for those who have no bucket
    return Bucket(storage) if module and isinstance(storage, module.S3Storage) else None


def _content(answer: dict[str, Any], body: Any = None) -> Content:
    length = int(answer["ContentLength"])
    part = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
    return Content(
        size=int(part[3]) if part else length,
        etag=answer.get("ETag", ""),
        modified=answer.get("LastModified"),
        start=int(part[1]) if part else 0,
        length=length,
        body=body,
    )


# --- what a bucket's errors mean -----------------------------------------------------------------------------------


def status_of(err: Exception) -> tuple[int, str]:
    """The HTTP status and the code with which a bucket has refused a call; `(0, "")` for any other error."""
    response = getattr(err, "response", None)
    if not isinstance(response, dict):
        return 0, ""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(response.get("Error", {}).get("Code", ""))


def is_not_there(err: Exception, *, if_refused: bool) -> bool:
    """Whether a bucket says that there is no such file.

    Args:
        err: What was raised.
        if_refused: Take a refusal for that, too: it is S3's answer for a file that is not there if the asker may not
            list the bucket.
    """
    status, code = status_of(err)
    return (status == 404 and code in _NOT_THERE) or (if_refused and status == 403 and code in _REFUSED)


def real_size(err: Exception) -> int | None:
    """The size of a file of which a part beyond its end was asked for; `None` if the bucket does not say."""
    response = getattr(err, "response", None)
    size = response.get("Error", {}).get("ActualObjectSize") if isinstance(response, dict) else None
    return int(size) if size is not None else None


def advice(err: Exception, action: str, folder: str) -> str:
    """What an operator can do about a bucket's refusal, as a sentence without its name; "" if nothing is known.

    Args:
        err: What was raised.
        action: `save`, `read`, `look`, `remove` or `list`.
        folder: The folder that holds the app's files.
    """
    status, code = status_of(err)
    if code == "NoSuchBucket":
        return "The bucket does not exist. The operator should check its name (S3_BUCKET)."
    if code in _UNKNOWN_KEY:
        return "The bucket does not know the access key, or the secret key is wrong. The operator should check them."
    if status == 403:
        return f"The bucket refused this: its policy has to allow {_PERMISSIONS[action]} {folder}/*."
    return ""
