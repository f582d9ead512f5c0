"""The admin: what an operator finds there, who may do what, that deleting removes files, and what it costs."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.staticfiles import finders
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from images.admin import deleting, generated_images
from images.conf import conf
from images.models import GeneratedImage, Status, image_storage
from tests.fakes.providers import png

pytestmark = pytest.mark.django_db

LIST = reverse("admin:images_generatedimage_changelist")
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> & {{ 7|add:7 }}'


def make_image(*, file: bytes | None = None, **fields: Any) -> GeneratedImage:
    """A row as a generation leaves it; with `file`, a ready one whose file is there."""
    image = GeneratedImage(**{"content_item_id": "item", "title": "A title", "status": Status.FAILED, **fields})
    image.file_stem = f"draft-images/{image.content_item_id}/hero-{uuid.uuid4().hex}"
    if file is not None:
        image.status, image.size_bytes, image.width, image.height = Status.READY, len(file), 16, 9
        image.file.name = image_storage().save(f"{image.file_stem}.png", ContentFile(file))
    image.save(force_insert=True)
    return image


def page(image: GeneratedImage, name: str = "change") -> str:
    return reverse(f"admin:images_generatedimage_{name}", args=[image.pk])


def client_with(*codenames: str) -> Client:
    """A client of a staff user with these permissions only."""
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def body(client: Client, url: str, **query: str) -> str:
    response = client.get(url, query)
    assert response.status_code == 200
    return response.content.decode()


def found(client: Client, **query: str) -> set[uuid.UUID]:
    """The ids of the images that the list shows."""
    response = client.get(LIST, query)
    assert response.status_code == 200
    return {image.pk for image in response.context["cl"].result_list}


# --- the list -------------------------------------------------------------------------------------------


def test_the_list_shows_provider_model_size_and_duration(admin_client: Client, user: User) -> None:
    image = make_image(file=png(), owner=user, provider="openai", model="gpt-x", duration_ms=8240, title="Sunrise")
    html = body(admin_client, LIST)
    size = f"{len(png())}\xa0bytes · 16 × 9"
    for text in ("item", "Sunrise", "openai", "gpt-x", "8.2 s", "ann", size):
        assert text in html
    assert f'<img class="images-preview" src="{page(image, "preview")}" alt="" width="120" height="68"' in html
    assert 'loading="lazy"' in html


def test_the_list_says_shortly_why_there_is_no_picture(admin_client: Client) -> None:
    attempts = [*[{"provider": "gemini", "code": "provider_timeout", "ms": 31_000}] * 2, "not one of ours"]
    make_image(error_code="provider_timeout", error_message="Too slow.", attempts=attempts, provider="gemini")
    make_image(error_code="of_a_strangers_provider")
    gone = make_image(file=png())
    image_storage().delete(str(gone.file.name))
    html = body(admin_client, LIST)
    for text in ("no answer in time", "2 attempts", "of_a_strangers_provider", "file missing"):
        assert text in html
    assert "Too slow." not in html  # the image's page has the sentence
    assert 'field-provider_and_model">–' in html  # nobody made it
    assert "data-copy" not in html


def test_a_pending_image_says_whether_it_waits_or_is_being_made_and_for_how_long(admin_client: Client) -> None:
    now = timezone.now()
    queued = make_image(status=Status.PENDING, created_at=now - timedelta(seconds=50))
    running = make_image(
        status=Status.PENDING, created_at=now - timedelta(seconds=90), started_at=now - timedelta(seconds=7)
    )
    ready = make_image(file=png())
    html = body(admin_client, LIST)
    assert [f'data-pending="{image.pk}"' in html for image in (queued, running, ready)] == [True, True, False]
    url = reverse("admin:images_generatedimage_progress")
    ids = ",".join(str(image.pk) for image in (queued, running, ready))
    states = admin_client.get(url, {"ids": ids}).json()
    assert {key: state["kind"] for key, state in states.items()} == {
        str(queued.pk): "queued",
        str(running.pk): "generating",
        str(ready.pk): "ready",
    }
    assert 50 <= states[str(queued.pk)]["seconds"] < 60
    assert 7 <= states[str(running.pk)]["seconds"] < 17
    assert states[str(ready.pk)]["seconds"] is None
    assert admin_client.get(url, {"ids": "x"}).status_code == 404


def test_a_generation_whose_process_was_stopped_counts_as_failed(admin_client: Client) -> None:
    now = timezone.now()
    stale = make_image(status=Status.PENDING, deadline_at=now - timedelta(hours=1))
    running = make_image(status=Status.PENDING, deadline_at=now + timedelta(hours=1))
    assert found(admin_client, status="failed") == {stale.pk}
    assert found(admin_client, status="pending") == {running.pk}
    assert "No worker started the request in time." in body(admin_client, page(stale))


def test_the_filters_find_by_variant_provider_model_and_day(admin_client: Client) -> None:
    old = make_image(provider="gemini", model="banana", created_at=timezone.now() - timedelta(days=400))
    new = make_image(provider="openai", model="gpt-x", variant="inline")
    assert found(admin_client, variant__exact="inline") == {new.pk}
    assert found(admin_client, provider="gemini") == found(admin_client, model="banana") == {old.pk}
    assert found(admin_client, created_at__year=str(old.created_at.year)) == {old.pk}
    assert found(admin_client, content_item_id="item") == {old.pk, new.pk}
    failed = make_image(error_code="provider_timeout")
    assert found(admin_client, error_code="provider_timeout") == {failed.pk}


def test_search_finds_content_item_id_address_and_words_of_the_title(admin_client: Client) -> None:
    wanted = make_image(
        file=png(), content_item_id="507f1f77bcf86cd799439011", title="A red fox", description="hidden"
    )
    make_image(content_item_id="507f1f77bcf86cd799439012", title="A grey goose")
    address = f"https://pics.example/media/{wanted.file.name}"
    for term in (wanted.content_item_id, str(wanted.pk), address, "fox red", "FOX", '"red fox"'):
        assert found(admin_client, q=term) == {wanted.pk}
    assert found(admin_client, q='"fox red"') == set()
    assert len(found(admin_client, q="507f1f77")) == 2
    assert found(admin_client, q="hidden") == set()


def test_search_finds_owner_and_prompt_and_ignores_case_in_every_alphabet(admin_client: Client) -> None:
    anna = User.objects.create_user("Анна", email="anna@example.com", last_name="Ёлкина")
    hers = make_image(title="Тихая гавань", owner=anna, prompt="Рыбацкие лодки. 100% (утро)")
    make_image(title="Шумный порт", owner=User.objects.create_user("boris"), prompt="Краны")
    for term in ("тихая", "ТИХАЯ ГАВАНЬ", "лодки", "анна", "ANNA@example", "ёлкина рыбацкие", "100% (УТРО)"):
        assert found(admin_client, q=term) == {hers.pk}, term
    for term in ("порт тихая", "анна краны", "тих.я", "100_"):
        assert found(admin_client, q=term) == set(), term


def test_the_list_is_sorted_by_title(admin_client: Client) -> None:
    for title, item in (("b", "1"), ("c", "2"), ("a", "3")):
        make_image(title=title, content_item_id=item)
    page = admin_client.get(LIST, {"o": "2"})  # the first column is the choice, the second the picture
    assert [image.title for image in page.context["cl"].result_list] == ["a", "b", "c"]


def test_a_search_of_very_many_words_is_answered(admin_client: Client) -> None:
    assert found(admin_client, q="a " * 20_000) == set()


def test_the_list_costs_the_same_number_of_queries_for_any_number_of_rows(admin_client: Client) -> None:
    def queries() -> list[str]:
        with CaptureQueriesContext(
            connection,
        ) as context:
            body(admin_client, LIST)
        return [query["sql"] for query in context.captured_queries]

    make_image(owner=User.objects.create_user("one"), provider="gemini", file=png())
    few = queries()
    for number in range(60):
        make_image(owner=User.objects.create_user(f"user{number}"), provider="gemini", file=png())
    many = queries()
    assert len(many) == len(few) <= 13
    assert not [sql for sql in many if '"description"' in sql or '"prompt"' in sql or '"usage"' in sql]


def test_the_dates_to_choose_from_need_no_look_at_every_row(admin_client: Client) -> None:
    day = datetime(2024, 2, 28, 12, tzinfo=UTC)
    for created_at in (day, day + timedelta(days=2)):
        make_image(created_at=created_at)

    def choices(**query: str) -> list[str]:
        with CaptureQueriesContext(connection) as context:
            cl = admin_client.get(LIST, query).context["cl"]
            offered = [link["title"] for link in cl.dates.get("choices", [])]
        assert not [
            sql["sql"] for sql in context.captured_queries if "DISTINCT" in sql["sql"] and "trunc" in sql["sql"]
        ]
        return offered

    assert choices() == ["February 2024", "March 2024"]
    assert choices(created_at__year="2024", created_at__month="2") == ["February 28", "February 29"]
    assert choices(created_at__year="2024", created_at__month="3", created_at__day="1") == ["March 1"]
    assert choices(created_at__day="31") == ["February 2024", "March 2024"]
    make_image(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert choices() == ["2024", "2025", "2026"]
    GeneratedImage.objects.all().delete()
    assert choices() == []


# --- the page of one image ------------------------------------------------------------------------------


def test_the_page_shows_picture_prompt_usage_attempts_and_error(admin_client: Client, settings: Settings) -> None:
    settings.IMAGES = {"PUBLIC_URL": "https://pics.example"}
    attempt = {
        "provider": "gemini",
        "model": "banana",
        "code": "provider_timeout",
        "ms": 31_000,
        "request_id": "req-7",
    }
    image = make_image(
        file=png(), prompt="Draw a fox.", negative_prompt="text", style="cinematic", seed=4711, attempts=[attempt],
        usage={"total_tokens": 1234}, error_code="provider_timeout", error_message="Too slow.",
    )  # fmt: skip
    html = body(admin_client, page(image))
    assert f'src="/media/{image.file.name}"' in html
    assert f'value="https://pics.example/media/{image.file.name}"' in html
    for text in ("Draw a fox.", "cinematic", "4711", "total_tokens&quot;: 1234", "<title>A title |", "(UTC)"):
        assert text in html
    for cell in ("gemini", "banana", "provider_timeout", "31000", "req-7"):
        assert f">{cell}</td>" in html


@pytest.mark.parametrize("status", Status.values)
def test_the_page_of_an_image_in_any_status_without_a_file_is_shown(admin_client: Client, status: str) -> None:
    html = body(admin_client, page(make_image(status=status)))
    word = {"pending": "queued", "ready": "file missing", "failed": "failed", "deleting": "being deleted"}[status]
    assert f"{word}\n" in html.replace("</span>", "\n").replace(" <span", "\n")
    assert "images-picture" not in html
    assert "data-copy" not in html


def test_a_failed_image_says_what_to_do_and_not_who_made_it(admin_client: Client, user: User) -> None:
    attempt = {"provider": "gemini", "model": "banana", "code": "provider_auth", "ms": 10}
    image = make_image(
        error_code="provider_auth", error_message="In English.", provider="gemini", attempts=[attempt], owner=user
    )
    html = body(admin_client, page(image))
    assert "An administrator has to set a valid API key." in html
    assert "API key refused (provider_auth)" in html
    assert '<span lang="en">In English.</span>' in html
    assert "by ann" in html
    for absent in ("field-made_by", "field-provider", "field-address", "field-sha256"):
        assert absent not in html
    stale = make_image(status=Status.PENDING, deadline_at=timezone.now() - timedelta(hours=1))
    html = body(admin_client, page(stale))
    assert "never started" in html
    assert "pending" not in html.partition('id="content"')[2].partition("Technical details")[0].lower()


def test_the_page_says_what_the_image_cost_and_where_it_is_used(admin_client: Client, settings: Settings) -> None:
    image = make_image(file=png(), cost=Decimal("0.0412"), cost_basis="estimated", content_item_id="item")
    GeneratedImage.objects.update(content_item_id="a/../b?c#d")
    html = body(admin_client, page(image))
    assert '$0.0412<span class="images-second-line">estimated from tokens and prices' in html
    assert "See where it is used" not in html
    settings.IMAGES = {"CONTENT_ITEM_URL": "https://www.example.com/articles/{content_item_id}?from=admin"}
    expected = "https://www.example.com/articles/a%2F..%2Fb%3Fc%23d?from=admin"
    assert link_with("See where it is used", body(admin_client, page(image))) == expected
    GeneratedImage.objects.update(content_item_id="..", cost=None)
    html = body(admin_client, page(image))
    assert "See where it is used" not in html
    assert re.search(r"field-exact_cost.*?unknown", html, re.DOTALL)


@pytest.mark.parametrize(
    "wrong",
    ["javascript:{content_item_id}", "https://{content_item_id}.example.com/", "https://example.com/",
     "articles/{content_item_id}", "//{content_item_id}/"],
)  # fmt: skip
def test_an_address_that_an_id_could_bend_is_refused(settings: Settings, wrong: str) -> None:
    settings.IMAGES = {"CONTENT_ITEM_URL": wrong}
    with pytest.raises(ImproperlyConfigured, match="IMAGE_CONTENT_ITEM_URL must"):
        conf.content_item_url  # noqa: B018


def test_the_other_versions_of_the_content_item_are_shown_beside_each_other(admin_client: Client) -> None:
    image, other = make_image(file=png()), make_image(file=png(), variant="inline")
    make_image(file=png(), content_item_id="another")
    html = body(admin_client, page(image)).partition("images-versions")[2]
    assert page(other, "preview") in html
    assert html.count("/preview/") == 1


@pytest.mark.parametrize(
    ("usd", "basis", "listed", "exact"),
    [
        ("0.035235", "estimated", ">$0.0352<", "$0.035235"),
        ("12", "at_least", ">at least $12.00<", "at least; a part is unknown, prices of 11/28/2026"),
        ("0.00000123", "estimated", ">$0.00000123<", "estimated from tokens and prices, prices of 11/28/2026"),
        (None, "", "", "unknown"),
    ],
)
def test_the_list_and_the_page_show_what_an_image_cost(
    admin_client: Client, usd: str | None, basis: str, listed: str, exact: str
) -> None:
    image = make_image(cost=usd and Decimal(usd), cost_basis=basis, prices_dated=date(2026, 11, 28))
    assert (f'images-second-line"{listed}' if listed else "failed") in body(admin_client, LIST)
    assert exact in body(admin_client, page(image))


def test_hostile_text_is_escaped_on_every_page(admin_client: Client) -> None:
    cell = dict.fromkeys(["provider", "model", "code", "ms", "request_id"], HOSTILE)
    image = make_image(
        file=png(), title=HOSTILE, description=HOSTILE, prompt=HOSTILE, negative_prompt=HOSTILE, style=HOSTILE[:64],
        provider=HOSTILE[:64], model=HOSTILE, usage={HOSTILE: HOSTILE}, attempts=[cell], error_code=HOSTILE[:64],
        error_message=HOSTILE,
    )  # fmt: skip
    GeneratedImage.objects.update(content_item_id=HOSTILE)
    broken = make_image(error_code=HOSTILE[:64], error_message=HOSTILE)
    for url in (LIST, page(image), page(broken), page(image, "delete")):
        html = body(admin_client, url)
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert "&lt;script&gt;" in html


def test_the_style_sheet_is_a_file_and_nothing_is_inline(admin_client: Client) -> None:
    assert finders.find("images/admin.css")
    html = body(admin_client, LIST) + body(admin_client, page(make_image(file=png(), attempts=[{"ms": 1}])))
    assert html.count("images/admin.css") == 2
    for inline in (" style=", " onclick=", " onload=", "<style"):
        assert inline not in html


# --- who may do what ------------------------------------------------------------------------------------


def test_images_cannot_be_changed(admin_client: Client) -> None:
    image = make_image(title="before")
    assert admin_client.post(page(image), {"title": "after"}).status_code == 403
    assert 'name="title"' not in body(admin_client, page(image))


def test_a_user_who_may_only_view_cannot_delete() -> None:
    client, image = client_with("view_generatedimage"), make_image(file=png())
    assert "delete_selected" not in body(client, LIST)
    assert page(image, "delete") not in body(client, page(image))
    assert client.post(page(image, "delete"), {"post": "yes"}).status_code == 403
    client.post(LIST, {"action": "delete_selected", "_selected_action": [str(image.pk)], "post": "yes"})
    assert GeneratedImage.objects.filter(pk=image.pk).exists()


def test_staff_without_the_permission_see_nothing() -> None:
    client, image = client_with("view_user"), make_image(file=png())
    for url in (LIST, page(image), page(image, "preview"), page(image, "delete")):
        assert client.get(url).status_code == 403


# --- deleting -------------------------------------------------------------------------------------------


def files(media_root: Path) -> list[str]:
    return [path.name for path in media_root.rglob("*") if path.is_file()]


def test_deleting_an_image_removes_its_file_after_the_commit(
    admin_client: Client, media_root: Path, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    image = make_image(file=png())
    with django_capture_on_commit_callbacks(execute=True):
        assert admin_client.post(page(image, "delete"), {"post": "yes"}).status_code == 302
        assert files(media_root)  # a rollback would still keep it
    assert not GeneratedImage.objects.exists()
    assert not files(media_root)


def test_deleting_many_removes_their_files_and_no_other(
    admin_client: Client, media_root: Path, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    doomed, kept = [make_image(file=png()) for _ in range(3)], make_image(file=png())
    choice = {"action": "delete_selected", "_selected_action": [str(image.pk) for image in doomed]}
    question = admin_client.post(LIST, choice).text
    assert "The files of 3 pictures and their public addresses go for good" in question
    assert question.count("/preview/") == 3
    assert question.index('value="Delete for good"') < question.index("/preview/")  # in reach, however many there are
    with django_capture_on_commit_callbacks(execute=True):
        assert admin_client.post(LIST, {**choice, "post": "yes"}).status_code == 302
    assert list(GeneratedImage.objects.all()) == [kept]
    assert files(media_root) == [Path(str(kept.file.name)).name]


def test_a_file_that_cannot_be_removed_does_not_break_the_page(
    admin_client: Client, media_root: Path, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    image = make_image(file=png())
    (media_root / str(image.file.name)).unlink()
    (media_root / str(image.file.name)).mkdir()  # unlink() fails on it, also for root
    with django_capture_on_commit_callbacks(execute=True):
        assert admin_client.post(page(image, "delete"), {"post": "yes"}).status_code == 302
    assert not GeneratedImage.objects.exists()


def test_of_more_than_can_be_deleted_in_one_request_the_newest_are_and_the_rest_stays(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleting, "MAX_DELETED_AT_ONCE", 2)
    images = [make_image(created_at=timezone.now() - timedelta(days=days)) for days in range(3)]
    choice = {"action": "delete_selected", "select_across": "1", "_selected_action": [str(images[0].pk)]}
    question = admin_client.post(LIST, choice).text
    assert "1 more image is chosen. It stays for now" in question
    sent = re.findall(r'name="_selected_action" value="([^"]+)"', question)
    admin_client.post(LIST, {"action": "delete_selected", "_selected_action": sent, "post": "yes"})
    assert list(GeneratedImage.objects.all()) == [images[2]]


@pytest.mark.parametrize("view", ["changelist", "gallery"])
def test_a_visit_a_deletion_and_making_again_lead_back_to_where_one_was(admin_client: Client, view: str) -> None:
    image, other = make_image(title="One"), make_image(title="Two")
    make_image(title="Three", status=Status.PENDING)
    where = f"{reverse(f'admin:images_generatedimage_{view}')}?status=failed&q=title"
    for one in (image, other):
        GeneratedImage.objects.filter(pk=one.pk).update(title=f"title {one.title}")
    visit = link_to(page(image), body(admin_client, where))
    html = body(admin_client, visit)
    assert page(other) in link_with("Newer image", html)
    assert "Older image" not in html  # the pending one is not among the failed
    back = admin_client.get(link_with("Back to the list", html), follow=True)
    assert {shown.pk for shown in back.context["cl"].result_list} == {image.pk, other.pk}
    assert back.context["cl"].params == {"status": "failed", "q": "title"}
    assert bool(back.context.get("gallery")) == (view == "gallery")
    assert link_with("No, take me back", body(admin_client, link_with("Make again", html)))
    gone = admin_client.post(link_with("Delete", html), {"post": "yes"}, follow=True)
    assert "“title One” was deleted, with its file." in gone.text
    assert gone.context["cl"].params == {"status": "failed", "q": "title"}
    assert bool(gone.context.get("gallery")) == (view == "gallery")


def link_to(path: str, html: str) -> str:
    """The first link to a page, with its query."""
    found = re.search(rf'href="({path}[^"]*)"', html)
    assert found
    return unescape(found[1])


def link_with(text: str, html: str) -> str:
    """The link with this text."""
    found = re.search(rf'<a [^>]*href="([^"]*)"[^>]*>[‹ ]*{text}', html)
    assert found, text
    return unescape(found[1])


def test_the_page_after_the_last_one_is_the_last_one(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever deletes all of the last page comes back to it."""
    monkeypatch.setattr(generated_images.GeneratedImageAdmin, "list_per_page", 2)
    for _ in range(3):
        make_image()
    assert len(admin_client.get(LIST, {"p": "3"}).context["cl"].result_list) == 1


def test_receivers_of_a_bulk_delete_get_whole_rows(admin_client: Client) -> None:
    """A deferred column of a row that is gone could not be read any more."""
    image = make_image(prompt="Draw a fox.")
    choice = {"action": "delete_selected", "_selected_action": [str(image.pk)]}
    [listed] = admin_client.get(LIST).context["cl"].result_list
    [chosen] = admin_client.post(LIST, choice).context["queryset"]
    assert "prompt" in listed.get_deferred_fields()
    assert chosen.get_deferred_fields() == set()
