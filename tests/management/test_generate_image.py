"""`manage.py generate_image`."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from images.exceptions import ProviderAuth
from images.models import GeneratedImage
from tests.fakes.providers import FakeProvider

ARGUMENTS = ["generate_image", "--content-item", "42", "--title", "A quiet harbour"]

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*ARGUMENTS, *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_prints_the_address_and_nothing_else(fake_provider: FakeProvider) -> None:
    assert run("--variant", "inline") == GeneratedImage.objects.get().public_url() + "\n"


def test_prints_json_on_request(fake_provider: FakeProvider) -> None:
    facts = json.loads(run("--json", "--seed", "5"))
    assert (facts["seed"], facts["provider"], facts["width"]) == (5, "test", 16)


def test_gives_the_image_to_a_user(fake_provider: FakeProvider, user: User) -> None:
    run("--user", "ann")
    assert GeneratedImage.objects.get().owner == user
    with pytest.raises(CommandError, match="no user named 'nobody'"):
        run("--user", "nobody")


def test_fails_with_the_sentence_and_the_code(fake_provider: FakeProvider) -> None:
    fake_provider.will(ProviderAuth("Check OPENAI_API_KEY."))
    with pytest.raises(CommandError, match=r"Check OPENAI_API_KEY\. \(provider_auth\)"):
        run()
