"""The API's pages for people."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from images.services import generate_image
from tests.fakes.providers import FakeProvider

pytestmark = pytest.mark.django_db
HTML = {"accept": "text/html"}


@pytest.fixture
def person(client: Client, django_user_model: type[User]) -> Client:
    client.force_login(django_user_model.objects.create_user("editor"))
    return client


def test_a_refused_form_keeps_what_was_typed_and_marks_the_field(person: Client, fake_provider: FakeProvider) -> None:
    typed = {"contentItemId": "guide-7", "title": "", "description": "Boats <b>& mist</b>", "variant": "inline"}
    page = person.post("/api/images/", typed, headers=HTML)
    text = page.content.decode()
    assert page.status_code == 400
    assert 'value="guide-7"' in text
    assert "Boats &lt;b&gt;&amp; mist&lt;/b&gt;" in text
    assert re.search(r'<option value="inline" selected', text)
    title = text[text.index('name="title"') :]
    assert "This field may not be blank." in title[: title.index("</div>\n")]
    assert not fake_provider.requests


def test_the_form_speaks_in_words_stands_above_the_list_and_has_the_default_variant(person: Client) -> None:
    text = person.get("/api/images/", headers=HTML).content.decode()
    labels = [label.strip() for label in re.findall(r"<label[^>]*>([^<]+)</label>", text)]
    assert labels[:5] == ["Content item", "Title", "Description", "Context", "Variant"]
    crumbs = text[text.index('class="breadcrumb"') :]
    assert crumbs[: crumbs.index("</ul>")].count("Images</a>") == 1
    assert text.index("images-generate") < text.index("response-info")
    assert re.search(r'<option value="hero" selected', text)


@pytest.mark.parametrize("language", ["en", "ru"])
def test_each_page_has_its_own_title_and_its_language(
    person: Client, fake_provider: FakeProvider, language: str
) -> None:
    image = generate_image(content_item_id="a", title="Тихая <гавань>", user=User.objects.get())
    headers = {**HTML, "accept-language": language}
    one = person.get(f"/api/images/{image.pk}", headers=headers).content.decode()
    many = person.get("/api/images/", headers=headers).content.decode()
    titles = [re.search(r"<title>(.*?)</title>", text)[1] for text in (one, many)]  # type: ignore[index]
    assert titles[0].startswith("Тихая &lt;гавань&gt;")
    assert titles[0] != titles[1]
    assert all(f'<html lang="{language}">' in text for text in (one, many))
