"""Keeps secrets out of what the doctor says, also where somebody else's error message holds one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.views.debug import SafeExceptionReporterFilter

from ...conf import conf
from .findings import Finding

#: Shorter values are words that would make holes into sentences rather than secrets.
_SHORTEST = 6
_HIDDEN = SafeExceptionReporterFilter.hidden_settings
_MASK = "[secret]"


def without_secrets(finding: Finding, secrets: tuple[str, ...]) -> Finding:
    """The finding with every secret in it blotted out."""
    sentence, next_step = finding.sentence, finding.next_step
    for secret in secrets:
        sentence, next_step = sentence.replace(secret, _MASK), next_step.replace(secret, _MASK)
    return replace(finding, sentence=sentence, next_step=next_step)


def known_secrets() -> tuple[str, ...]:
    """Every value of the settings and the environment that is called a key, a token, a password or the like.

    The longest come first, so that one which holds another is blotted out as a whole.
    """
    found = {value for value in _candidates() if len(value) >= _SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def _candidates() -> Iterator[str]:
    yield from _hidden_values(os.environ)
    yield from (str(key) for key in [settings.SECRET_KEY, *getattr(settings, "SECRET_KEY_FALLBACKS", [])])
    for part in (settings.DATABASES, settings.STORAGES, getattr(settings, "IMAGES", None)):
        yield from _hidden_values(part)
    try:
        backends = conf.provider_backends
    except ImproperlyConfigured:  # reported as such; what it holds has been read above
        return
    for backend in backends.values():
        yield from _hidden_values(backend.options)


def _hidden_values(values: Any) -> Iterator[str]:
    """The texts in nested dictionaries whose names say that they are secret."""
    if not isinstance(values, Mapping):
        return
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _hidden_values(value)
        elif isinstance(value, str) and _HIDDEN.search(str(name)):
            yield value.strip()
