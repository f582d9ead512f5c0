"""A host's own variants (`IMAGES["VARIANTS"]`): every place that knows variants, and what stays of one taken away."""

from __future__ import annotations

import json
import uuid
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings
from rest_framework.test import APIClient

from images import checks
from images.exceptions import InvalidRequest
from images.file_names import read_file_name
from images.models import GeneratedImage
from images.providers import Deadline, ImageRequest
from images.providers.base import nearest_ratio
from images.providers.gemini import GeminiProvider
from images.providers.openai import size_doubt, size_for
from images.services import generate_image
from images.services.generation import run_generation
from images.services.importing import import_images
from images.services.prompts import PromptBuilder
from images.services.wording import Wording
from tests.fakes.doctor import Configure
from tests.fakes.provider_server import ProviderServer
from tests.fakes.providers import FakeProvider, png

SOCIAL = {
    "RATIO": "1200:630",
    "PURPOSE": "the preview that social networks show",
    "FRAMING": "one bold subject in the middle, nothing near the edges",
}
BODY = {"contentItemId": "665f1c2e9b1e8a0012345678", "title": "A quiet harbour", "variant": "og-image"}


@pytest.fixture
def own(settings: Settings, fake_provider: FakeProvider) -> FakeProvider:
    settings.IMAGES = {**settings.IMAGES, "VARIANTS": {"og-image": SOCIAL, "square": "1:1"}}
    return fake_provider


def take_away(settings: Settings) -> None:
    settings.IMAGES = {key: value for key, value in settings.IMAGES.items() if key != "VARIANTS"}


def checked() -> list[Any]:
    return [message for message in checks.check_variants() + checks.check_keys() if message.id != "images.W001"]


# --- asking for one ---------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_api_takes_it_and_names_the_file_after_it(api: APIClient, own: FakeProvider) -> None:
    body = api.post("/api/images/generate", BODY, format="json").json()
    assert body["variant"] == "og-image"
    assert "/og-image-" in body["imageUrl"]
    assert b"".join(Client().get(body["imageUrl"].removeprefix("https://pics.example"))) == png()
    [request] = own.requests
    assert (request.variant, request.aspect_ratio) == ("og-image", (40, 21))
    assert f"It is {SOCIAL['PURPOSE']}." in request.prompt
    assert f"Framing: {SOCIAL['FRAMING']}." in request.prompt
    found = api.get("/api/images/?variant=og-image").json()["results"]
    assert [row["id"] for row in found] == [body["id"]]
    assert api.delete(f"/api/images/{body['id']}").status_code == 200


@pytest.mark.django_db
def test_what_is_not_configured_is_refused_everywhere_with_the_names_that_are(
    api: APIClient, own: FakeProvider
) -> None:
    answer = api.post("/api/images/generate", {**BODY, "variant": "poster"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    with pytest.raises(InvalidRequest, match="hero, inline, og-image, square"):
        generate_image(content_item_id="1", title="A title", variant="poster")
    with pytest.raises(CommandError, match="square"):
        call_command("generate_image", "--content-item", "1", "--title", "A title", "--variant", "poster")
    assert own.requests == []


@pytest.mark.django_db
def test_the_command_knows_it(own: FakeProvider) -> None:
    out = StringIO()
    arguments = ["--content-item", "1", "--title", "A title", "--variant", "square", "--json"]
    call_command("generate_image", *arguments, stdout=out, stderr=StringIO())
    assert json.loads(out.getvalue())["variant"] == "square"
    assert own.requests[0].aspect_ratio == (1, 1)


@pytest.mark.django_db
def test_the_openapi_schema_knows_it(own: FakeProvider) -> None:
    answer = Client().get("/api/schema/", headers={"accept": "application/vnd.oai.openapi+json"})
    schema = json.loads(answer.content)
    names = ["hero", "inline", "og-image", "square"]
    wanted = schema["components"]["schemas"]["ImagesGenerate"]["properties"]["variant"]
    assert wanted["allOf"] == [{"enum": [*names, None]}]
    [parameter] = [each for each in schema["paths"]["/api/images/"]["get"]["parameters"] if each["name"] == "variant"]
    assert set(names) <= set(parameter["schema"]["enum"])
    # An image may have a variant that was taken away: strict clients must not stumble over it.
    assert "enum" not in json.dumps(schema["components"]["schemas"]["ImagesImage"]["properties"]["variant"])


@pytest.mark.django_db
def test_the_admins_filter_and_page_know_it(admin_client: Client, own: FakeProvider) -> None:
    image = generate_image(content_item_id="1", title="Of its own", variant="og-image")
    generate_image(content_item_id="2", title="Of another")
    page = admin_client.get(reverse("admin:images_generatedimage_changelist"), {"variant": "og-image"})
    text = page.content.decode()
    assert "og-image (1200:630)" in text
    assert "square (1:1)" in text
    assert ("Of its own" in text, "Of another" in text) == (True, False)
    page = admin_client.get(reverse("admin:images_generatedimage_change", args=[image.pk]))
    assert "og-image (1200:630)" in page.content.decode()


@pytest.mark.slow  # It loads both SDKs; what each is sent is tested below, too.
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("provider", "sent"),
    [("openai", {"size": "1280x672"}), ("gemini", {"aspectRatio": "16:9"})],
)
def test_the_vendor_gets_the_nearest_shape_that_it_accepts(
    configure: Configure, provider_server: ProviderServer, provider: str, sent: dict[str, str]
) -> None:
    configure(PROVIDER=provider, VARIANTS={"og-image": SOCIAL})
    generate_image(content_item_id="1", title="A title", variant="og-image")
    body = provider_server.requests[-1].json
    assert sent.items() <= (body.get("generationConfig", {}).get("imageConfig") or body).items()


# --- prompts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "orientation"),
    [("1:1", "1:1 square"), ("1080:1920", "9:16 portrait"), ("1200:628", "300:157 landscape")],
)
def test_a_ratio_alone_is_enough(settings: Settings, ratio: str, orientation: str) -> None:
    settings.IMAGES = {"VARIANTS": {"mine": ratio}}
    text = PromptBuilder().build(title="Bikes", description="", variant="mine", seed=1).text
    assert "It is an image of the article." in text
    assert f"Framing: {orientation}, the main subject clear of the edges." in text


def test_a_wording_of_ones_own_has_the_last_word(settings: Settings) -> None:
    class Prompts(PromptBuilder):
        wording = Wording(purposes={"og-image": "a stamp"})

    settings.IMAGES = {"VARIANTS": {"og-image": SOCIAL}}
    text = Prompts().build(title="Bikes", description="", variant="og-image", seed=1).text
    assert "It is a stamp." in text
    assert SOCIAL["FRAMING"] in text
    with pytest.raises(ValueError, match="poster"):
        Prompts().build(title="Bikes", description="", variant="poster", seed=1)


# --- shapes: the nearest legal one ------------------------------------------------------------------------


@given(st.integers(1, 99_999), st.integers(1, 99_999))
def test_openai_gets_a_size_that_it_accepts_for_any_ratio(width: int, height: int) -> None:
    size = size_for("gpt-image-2", (width, height))
    assert size_doubt("gpt-image-2", size) == ""
    got = [int(side) for side in size.split("x")]
    wanted = min(3.0, max(1 / 3, width / height))
    assert 0.97 < got[0] / got[1] / wanted < 1.03


@pytest.mark.parametrize(
    ("model", "ratio", "size"),
    [
        ("gpt-image-2", (40, 21), "1280x672"),
        ("gpt-image-2", (300, 157), "1584x832"),
        ("gpt-image-2", (8, 1), "1968x656"),
        ("gpt-image-2", (1, 4), "656x1968"),
        ("gpt-image-1", (6, 5), "1024x1024"),
        ("gpt-image-1", (5, 4), "1536x1024"),
        ("dall-e-3", (1, 4), "1024x1792"),
    ],
)
def test_openai_sizes(model: str, ratio: tuple[int, int], size: str) -> None:
    assert size_for(model, ratio) == size


@pytest.mark.parametrize(
    ("ratio", "nearest"),
    [((16, 9), "16:9"), ((4, 3), "4:3"), ((40, 21), "16:9"), ((1, 8), "9:16"), ((7, 5), "4:3"), ((8, 1), "21:9")],
)
def test_gemini_ratios(ratio: tuple[int, int], nearest: str) -> None:
    request = ImageRequest(prompt="", aspect_ratio=ratio, deadline=Deadline(at=0))
    assert GeminiProvider().build(request)["config"]["image_config"] == {"aspect_ratio": nearest}


def test_twice_as_wide_is_as_far_as_half_as_wide() -> None:
    assert nearest_ratio((1, 1), [(21, 10), (1, 2)]) == (1, 2)
    assert nearest_ratio((1, 1), [(19, 10), (1, 2)]) == (19, 10)


# --- taken away -------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_its_images_stay_readable(
    api: APIClient, user: User, admin_client: Client, own: FakeProvider, settings: Settings
) -> None:
    image = generate_image(content_item_id="1", title="An old one", variant="og-image", user=user)
    take_away(settings)
    assert api.get(f"/api/images/{image.pk}").json()["variant"] == "og-image"
    assert [row["variant"] for row in api.get("/api/images/?variant=og-image").json()["results"]] == ["og-image"]
    assert b"".join(Client().get(image.get_absolute_url())) == png()
    page = admin_client.get(reverse("admin:images_generatedimage_changelist"), {"variant": "og-image"})
    assert "An old one" in page.content.decode()
    assert "?variant=og-image" in page.content.decode()
    page = admin_client.get(reverse("admin:images_generatedimage_change", args=[image.pk]))
    assert "og-image" in page.content.decode()
    assert api.delete(f"/api/images/{image.pk}").status_code == 200
    assert not GeneratedImage.objects.exists()


@pytest.mark.django_db
def test_its_images_cannot_be_made_again_and_the_admin_says_why(
    admin_client: Client, own: FakeProvider, settings: Settings
) -> None:
    image = generate_image(content_item_id="1", title="An old one", variant="og-image")
    take_away(settings)
    address = f"{reverse('admin:images_generatedimage_again')}?ids={image.pk}"
    answer = admin_client.post(address, {"token": uuid.uuid4().hex, "images": image.pk.hex}, follow=True)
    assert "There is no variant &#x27;og-image&#x27;. Choose one of: hero, inline." in answer.text
    assert GeneratedImage.objects.count() == len(own.requests) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("variant", ["og-image", "%00", "x" * 17, "Og Image"])
def test_a_filter_for_somebody_elses_images_tells_nothing(
    api: APIClient, stranger: User, own: FakeProvider, settings: Settings, variant: str
) -> None:
    generate_image(content_item_id="1", title="Not yours", variant="og-image", user=stranger)
    take_away(settings)
    answer = api.get(f"/api/images/?variant={variant}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.django_db
def test_a_request_that_waited_in_the_queue_fails_and_nothing_is_paid(own: FakeProvider, settings: Settings) -> None:
    row = GeneratedImage.objects.create(content_item_id="1", title="A title", variant="og-image", file_stem="x")
    take_away(settings)
    run_generation(row.pk)
    row.refresh_from_db()
    assert (row.status, row.error_code, row.may_have_billed) == ("failed", "invalid_request", False)
    assert "og-image" in row.error_message
    assert own.requests == []


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["og-image", "square", "a", "x1_y", "a-b-c", "v" * 16])
@pytest.mark.parametrize("rest", ["1763049170351", "1763049170351-0123456789ab"])
def test_a_files_name_tells_its_variant(name: str, rest: str) -> None:
    found = read_file_name(f"draft-images/1/{name}-{rest}.png")
    assert found is not None
    assert (found[0], found[1].year) == (name, 2025)


@pytest.mark.django_db
def test_an_imported_picture_gets_the_variant_that_its_name_tells(own: FakeProvider, media_root: Path) -> None:
    folder = media_root / "draft-images" / "1"
    folder.mkdir(parents=True)
    for name in ("og-image-1763049170351.png", "poster-1763049170352.png"):
        (folder / name).write_bytes(png())
    list(import_images(directory=media_root))
    found = dict(GeneratedImage.objects.values_list("file", "variant"))
    assert found["draft-images/1/og-image-1763049170351.png"] == "og-image"
    assert found["draft-images/1/poster-1763049170352.png"] == "hero"


# --- settings that cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        ("hero", "16:9", "built in"),
        ("Social", "1:1", "lower-case"),
        ("a b", "1:1", "lower-case"),
        ("../x", "1:1", "lower-case"),
        ("card-2", "1:1", "letter first and after a hyphen"),
        ("x-", "1:1", "lower-case"),
        ("", "1:1", "lower-case"),
        (7, "1:1", "lower-case"),
        ("x" * 17, "1:1", "16 characters"),
        ("mine", "wide", '"1200:630"'),
        ("mine", "0:1", '"1200:630"'),
        ("mine", "16/9", '"1200:630"'),
        ("mine", {}, '"1200:630"'),
        ("mine", 1.91, "a ratio or a dictionary"),
        ("mine", "9:1", "8 times"),
        ("mine", {"RATIO": "1:1", "PURPOSE": 'the "best"'}, "double quotes"),
        ("mine", {"RATIO": "1:1", "FRAMING": "two\nlines"}, "one line"),
        ("mine", {"RATIO": "1:1", "FRAMING": ""}, "one line"),
        ("mine", {"RATIO": "1:1", "PURPOSE": "x" * 301}, "300 characters"),
    ],
)
def test_an_entry_that_cannot_be_used_is_a_check_error_with_a_hint(
    settings: Settings, name: Any, entry: Any, words: str
) -> None:
    settings.IMAGES = {"VARIANTS": {name: entry, "fine": "1:1"}}
    [message] = checked()
    assert (message.id, words in message.msg) == ("images.E020", True), message.msg
    assert '"RATIO": "1200:630"' in message.hint


@pytest.mark.django_db
@pytest.mark.parametrize("variants", [{"Social": "1:1"}, ["mine"]])
def test_the_checks_of_django_do_not_fall_over_entries_that_cannot_be_used(settings: Settings, variants: Any) -> None:
    settings.IMAGES = {"VARIANTS": variants}
    call_command("check", "--tag", "models")  # asks the model's field for its choices


def test_a_misspelt_key_is_an_error_with_a_guess(settings: Settings) -> None:
    settings.IMAGES = {"VARIANTS": {"mine": {"RATIO": "1:1", "FRAMEING": "close"}}}
    [message] = checked()
    assert (message.id, message.hint) == ("images.E004", 'Did you mean "FRAMING"?')


@pytest.mark.django_db
def test_a_hosts_variants_make_no_migration(own: FakeProvider) -> None:
    call_command("makemigrations", "--check", "--dry-run", stdout=StringIO())
