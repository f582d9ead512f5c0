"""Everything that a person reads on our pages can be translated, and is there in Russian."""

from __future__ import annotations

import gettext
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from django.contrib.admin.utils import model_ngettext
from django.contrib.auth.models import User
from django.test import Client
from django.utils.translation import override

import images
import trygo_backend
from images.admin.columns import dollars
from images.admin.finding import month_day
from images.exceptions import BILLING_ADVICE, ImagesError, ProviderRefusedRequest, ProviderTimeout
from images.failures import SENTENCES, sentence_for_reader
from images.models import NO_WORKER_STARTED, STOPPED, CostBasis, GeneratedImage

PACKAGES = [Path(package.__file__).parent for package in (images, trygo_backend) if package.__file__]
TEMPLATES = [path for package in PACKAGES for path in sorted((package / "templates").rglob("*.html"))]
CATALOGUE = Path("locale/ru/LC_MESSAGES")

#: What a template may say untranslated: names that are the same in every language.
NAMES = {"CSV", "DOCTYPE", "doctype", "html"}

name = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)


@pytest.fixture
def tools() -> None:
    """GNU gettext."""
    if shutil.which("xgettext") and shutil.which("msgfmt"):
        return
    reason = "finding untranslated strings needs GNU gettext (apt install gettext)"
    if os.environ.get("CI_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)


def every_kind(root: type[ImagesError]) -> Iterator[type[ImagesError]]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == ImagesError.__module__:  # tests and hosts have kinds of their own
            yield from every_kind(kind)


def run(*command: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@name
def test_every_string_is_translated(package: Path, tools: None, tmp_path: Path) -> None:
    """Collects the strings anew, into a copy, and looks for those without a translation."""
    copy = tmp_path / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "fonts", "migrations"))
    run(sys.executable, "-m", "django", "makemessages", "--locale=ru", "--no-obsolete", cwd=copy)
    missing = run("msgattrib", "--untranslated", "--no-wrap", str(CATALOGUE / "django.po"), cwd=copy)
    fuzzy = run("msgattrib", "--only-fuzzy", "--no-wrap", str(CATALOGUE / "django.po"), cwd=copy)
    # The catalogue's head comes first in both; it is no string.
    assert [re.findall(r'^msgid "(.+)"', text, re.MULTILINE) for text in (missing, fuzzy)] == [[], []]


@name
def test_the_compiled_catalogue_is_that_of_the_text(package: Path, tools: None, tmp_path: Path) -> None:
    """`manage.py compilemessages` was not forgotten, and every placeholder occurs in its translation."""
    run("msgfmt", "--check", "--output-file", str(tmp_path / "new.mo"), "django.po", cwd=package / CATALOGUE)
    catalogues = []
    for path in (package / CATALOGUE / "django.mo", tmp_path / "new.mo"):
        with path.open("rb") as file:
            catalogues.append(vars(gettext.GNUTranslations(file))["_catalog"])
    assert catalogues[0] == catalogues[1], "run `manage.py compilemessages`"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_says_anything_untranslated(template: Path) -> None:
    text = template.read_text()
    text = re.sub(
        r"{% comment %}.*?{% endcomment %}|{% blocktranslate.*?{% endblocktranslate %}", "", text, flags=re.S
    )
    text = re.sub(r"{% block bodyclass %}.*?{% endblock %}", "", text)
    text = re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    text = re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "", text)
    said = re.findall(r"(?:alt|title|aria-label|placeholder)=\"([^\"]+)\"", text)
    said.append(re.sub(r"<[^>]*>|&\w+;", " ", text))
    assert not {word for sentence in said for word in re.findall(r"[^\W\d_]{2,}", sentence)} - NAMES


@pytest.mark.django_db
@pytest.mark.parametrize(("language", "sentence"), [("ru", "Работает."), ("en", "It works."), ("fr", "It works.")])
def test_a_page_is_in_the_readers_language(
    client: Client, monkeypatch: pytest.MonkeyPatch, language: str, sentence: str
) -> None:
    monkeypatch.setenv("IMAGE_PROVIDER", "placeholder")
    response = client.get("/", headers={"accept-language": language})
    assert sentence in response.text
    assert "Accept-Language" in response["Vary"]


@pytest.mark.django_db
def test_the_admin_speaks_russian(admin_client: Client, admin_user: User) -> None:
    page = admin_client.get("/admin/images/generatedimage/usage/", headers={"accept-language": "ru"})
    assert "Статистика" in page.text
    assert "ничего не запрашивали" in page.text


def test_every_sentence_of_a_failure_is_marked_for_translation() -> None:
    assert {kind.default_message for kind in every_kind(ImagesError)} <= set(SENTENCES)
    assert {STOPPED, NO_WORKER_STARTED, BILLING_ADVICE} <= set(SENTENCES)


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        ("provider_timeout", ProviderTimeout.default_message, "Сервис генерации не ответил вовремя."),
        ("provider_auth", "The key ends in 42.", "Сервис генерации не принял ключ API."),
        ("provider_error", ProviderRefusedRequest.default_message, "Сервис генерации отклонил запрос."),
        ("internal_error", STOPPED, "Сервер остановили, пока он создавал это изображение;"),
        ("newsroom_said_no", "Not today.", "Not today."),
    ],
)
def test_a_failures_sentence_is_in_the_readers_language(code: str, message: str, told: str) -> None:
    billed = f"{message} {BILLING_ADVICE}"
    with override("en"):  # a page that an earlier test asked for may have left its language
        assert sentence_for_reader(code, billed) == billed
    with override("ru"):
        assert sentence_for_reader(code, message).startswith(told)
        if told != message:
            assert "взять плату за этот запрос" in sentence_for_reader(code, billed)


@pytest.mark.django_db
def test_a_page_tells_a_failure_in_russian_and_keeps_the_original(admin_client: Client) -> None:
    message = ProviderTimeout.default_message
    fields = {"status": "failed", "error_code": "provider_timeout", "error_message": message, "file_stem": "a"}
    image = GeneratedImage.objects.create(content_item_id="a", title="b", **fields)
    text = admin_client.get(
        f"/admin/images/generatedimage/{image.pk}/change/", headers={"accept-language": "ru"}
    ).text
    assert "Сервис генерации не ответил вовремя." in text
    details = re.search(r"<details[^>]*><summary>Подробности</summary>.*?</details>", text, re.DOTALL)
    assert details
    assert f'<p lang="en" dir="ltr">{message}</p>' in details[0]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("number", "words"), [(1, "1 изображение\n"), (3, "3 изображения\n"), (5, "5 изображений\n")]
)
def test_numbers_bend_their_nouns(admin_client: Client, number: int, words: str) -> None:
    for index in range(number):
        GeneratedImage.objects.create(content_item_id="a", title="b", file_stem=f"a{index}")
    text = admin_client.get("/admin/images/generatedimage/", headers={"accept-language": "ru"}).text
    assert f"\n{words}" in text[text.index('class="paginator"') :]
    with override("ru"):
        assert f"{number} {model_ngettext(GeneratedImage._meta, number)}\n" == words  # as Django's own messages count


@pytest.mark.parametrize(
    ("language", "amount", "day"),
    [("en", "at least $1,234.50", "November 28"), ("ru", "не меньше 1 234,50 $", "28 ноября")],
)
def test_money_and_dates_follow_the_locale(language: str, amount: str, day: str) -> None:
    with override(language):
        told = dollars(Decimal("1234.5"), CostBasis.AT_LEAST)
        assert re.sub(r"\s", " ", told) == amount
        assert month_day(date(2026, 11, 28)) == day


@pytest.mark.django_db
def test_what_programs_read_is_in_english_whatever_their_library_says(client: Client) -> None:
    """The API's sentences are part of the contract."""
    answer = client.get("/api/images/", headers={"accept-language": "ru"})
    assert answer.status_code == 401
    assert answer.json()["error"] == "Authentication credentials were not provided."
    assert "Accept-Language" not in answer.get("Vary", "")
    page = client.get("/api/images/", headers={"accept-language": "ru", "accept": "text/html"})
    assert "Учетные данные не были предоставлены" in page.text


def test_pictures_do_not_vary_by_language(client: Client) -> None:
    answer = client.get("/media/draft-images/a/hero-1.png", headers={"accept-language": "ru"})
    assert "Accept-Language" not in answer.get("Vary", "")
