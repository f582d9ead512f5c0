"""The system checks: each is registered, fires with a hint where it should, and keeps quiet otherwise."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.core.checks import CheckMessage, Error, Warning
from django.core.checks.registry import registry
from django.test import override_settings
from django.urls import Resolver404, include, path, resolve, reverse, set_script_prefix
from django.views.static import serve
from pytest_django import Settings

from images import checks
from images.conf import conf
from images.providers import Deadline, ImageProvider

KEY = "sk-" + "secret" * 5


class ReadyProvider(ImageProvider):
    """Needs nothing."""

    def call(self, payload: Any, deadline: Deadline) -> bytes:
        return b""


class KeylessProvider(ReadyProvider):
    """Says what it lacks, as the built-in ones do."""

    def check(self) -> list[str]:
        return ["STUB_API_KEY is not set."]


class Builder:
    """A prompt builder as far as the check looks."""

    def build(self) -> None: ...


def provider(name: str, **options: str) -> dict[str, Any]:
    return {"BACKEND": f"{__name__}.{name}", "OPTIONS": options}


GOOD: dict[str, Any] = {
    "PROVIDER": "ready",
    "PROVIDERS": {"ready": provider("ReadyProvider")},
    "PRICES": dict.fromkeys(["ready", "stub", "somebody-elses-model", "gpt-4o"], "0.02"),
    "PROMPT_BUILDER": f"{__name__}.Builder",
    "PUBLIC_URL": "https://images.example.com",
}


@pytest.fixture(autouse=True)
def _good_settings(settings: Settings) -> None:
    settings.IMAGES = dict(GOOD)
    settings.CORS_ALLOW_ALL_ORIGINS = False


def run() -> list[CheckMessage]:
    """Every message of this app's checks."""
    return registry.run_checks(tags=[checks.TAG])


def the_one() -> CheckMessage:
    """The only message there is; it has a hint, and repeats no key."""
    [message] = run()
    assert message.hint
    assert KEY not in str(message)
    return message


@pytest.mark.parametrize(
    "check",
    [
        checks.check_keys,
        checks.check_values,
        checks.check_providers,
        checks.check_models,
        checks.check_options,
        checks.check_prices,
        checks.check_scenes,
        checks.check_prompt_builder,
        checks.check_api_classes,
        checks.check_storage,
        checks.check_public_url,
        checks.check_urls,
        checks.check_apps,
        checks.check_cors,
        checks.check_trusted_networks,
    ],
    ids=lambda check: str(check.__name__),
)
def test_each_check_is_registered(check: Callable[..., Any]) -> None:
    assert check in registry.registered_checks


def test_a_good_configuration_says_nothing() -> None:
    assert run() == []


def test_no_id_is_given_twice() -> None:
    ids = [value for name, value in vars(checks).items() if name.isupper() and str(value).startswith("images.")]
    assert len({check_id[-3:] for check_id in ids}) == len(ids) >= 13


def test_a_missing_key_is_a_warning_so_that_migrate_runs(settings: Settings) -> None:
    settings.IMAGES |= {"PROVIDER": "stub", "PROVIDERS": {"stub": provider("KeylessProvider", api_key=KEY)}}
    message = the_one()
    assert (message.id, type(message)) == (checks.PROVIDER_NOT_READY, Warning)
    assert "STUB_API_KEY is not set." in message.msg


def test_every_configured_provider_is_looked_at(settings: Settings) -> None:
    settings.IMAGES |= {
        "PROVIDER": "ready,stub",
        "PROVIDERS": {"ready": provider("ReadyProvider"), "stub": provider("KeylessProvider")},
    }
    assert the_one().id == checks.PROVIDER_NOT_READY


def test_an_unknown_provider_is_an_error_with_a_guess(settings: Settings) -> None:
    settings.IMAGES["PROVIDER"] = "Opnai"
    message = the_one()
    assert (message.id, type(message)) == (checks.UNKNOWN_PROVIDER, Error)
    assert "IMAGE_PROVIDER=openai" in str(message.hint)


@pytest.mark.parametrize("path", ["nowhere.Provider", f"{__name__}.Missing", f"{__name__}.Builder"])
def test_a_provider_that_cannot_be_imported_is_an_error(settings: Settings, path: str) -> None:
    settings.IMAGES["PROVIDERS"] = {"ready": {"BACKEND": path, "OPTIONS": {"api_key": KEY}}}
    message = the_one()
    assert (message.id, type(message)) == (checks.PROVIDER_BROKEN, Error)
    assert path in message.msg


OLD, NEW = "gpt-image-1.5", "gpt-image-2.6-flare"


@pytest.mark.parametrize(
    ("provider", "options", "words"),
    [
        ("gemini", {"GEMINI_IMAGE_SIZE": "2k"}, "Did you mean 2K?"),
        ("gemini", {"GEMINI_IMAGE_SIZE": "512"}, "1K, 2K, 4K"),
        ("openai", {"OPENAI_IMAGE_SIZE": "1024"}, "such as 1536x1024"),
        ("openai", {"OPENAI_IMAGE_SIZE": "1000x1000", "OPENAI_IMAGE_MODEL": NEW}, "multiples of 16"),
        ("openai", {"OPENAI_IMAGE_SIZE": "3200x800", "OPENAI_IMAGE_MODEL": NEW}, "three times"),
        ("openai", {"OPENAI_IMAGE_SIZE": "512x512", "OPENAI_IMAGE_MODEL": NEW}, "655,360 to 8,294,400 pixels"),
        ("openai", {"OPENAI_IMAGE_SIZE": "1536x864", "OPENAI_IMAGE_MODEL": OLD}, "1536x1024, 1024x1024, 1024x1536"),
        ("openai", {"OPENAI_IMAGE_QUALITY": "foo"}, "low, medium, high"),
        ("openai", {"OPENAI_IMAGE_OUTPUT_FORMAT": "gif"}, "png, jpeg, webp"),
    ],
)
def test_an_option_that_the_vendor_is_not_known_to_accept_is_a_warning(
    settings: Settings, provider: str, options: dict[str, str], words: str
) -> None:
    settings.IMAGES |= {"PROVIDER": provider, "OPENAI_API_KEY": KEY, "GEMINI_API_KEY": KEY, **options}
    settings.SILENCED_SYSTEM_CHECKS = [checks.MODEL_RETIRED]
    [message] = [found for found in run() if not found.is_silenced()]
    assert (message.id, type(message)) == (checks.OPTION_DOUBTFUL, Warning)
    assert next(iter(options)) in message.msg
    assert words in message.msg
    assert str(message.hint).startswith("Correct it")


@pytest.mark.parametrize(
    "options",
    [
        {"OPENAI_IMAGE_SIZE": "auto"},
        {"OPENAI_IMAGE_SIZE": "2048x1152"},
        {"OPENAI_IMAGE_SIZE": "1024x1024", "OPENAI_IMAGE_MODEL": "openai/gpt-image-2"},
        {"OPENAI_IMAGE_SIZE": "500x700", "OPENAI_IMAGE_MODEL": "somebody-elses-model"},
        {"OPENAI_IMAGE_QUALITY": "xhigh", "OPENAI_IMAGE_OUTPUT_FORMAT": "webp"},
        {"PROVIDER": "gemini", "GEMINI_IMAGE_SIZE": "4K"},
    ],
)
def test_options_that_the_vendor_accepts_are_fine(settings: Settings, options: dict[str, str]) -> None:
    settings.IMAGES |= {"PROVIDER": "openai", "OPENAI_API_KEY": KEY, "GEMINI_API_KEY": KEY, **options}
    assert run() == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"https://{KEY}@host/v1", "user name"),
        (f"https://user:{KEY}@host/v1", "user name"),
        ("https://host/v1?a=b#x", "fragment"),
        ("https://host/v1#x", "fragment"),
        ("host/v1", "not an address"),
        ("https://host:port/v1", "not an address"),
    ],
)
@pytest.mark.parametrize(("provider", "name"), [("openai", "OPENAI_BASE_URL"), ("gemini", "GEMINI_API_BASE_URL")])
def test_a_base_url_that_cannot_be_used_is_a_warning(
    settings: Settings, provider: str, name: str, url: str, words: str
) -> None:
    settings.IMAGES |= {"PROVIDER": provider, "OPENAI_API_KEY": KEY, "GEMINI_API_KEY": KEY, name: url}
    message = the_one()
    assert message.id == checks.PROVIDER_NOT_READY
    assert f"{name} " in message.msg
    assert words in message.msg


def test_a_query_in_the_base_url_is_fine_for_openai_alone(settings: Settings) -> None:
    url = "https://host/openai/deployments/x?api-version=2025-04-01-preview"
    settings.IMAGES |= {"PROVIDER": "openai", "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}
    assert run() == []
    settings.IMAGES |= {"PROVIDER": "gemini", "GEMINI_API_KEY": KEY, "GEMINI_API_BASE_URL": url}
    message = the_one()
    assert message.id == checks.PROVIDER_NOT_READY
    assert "GEMINI_API_BASE_URL contains a query" in message.msg


@pytest.mark.parametrize(
    ("headers", "id"),
    [
        (f"X-Key {KEY}", checks.UNUSABLE_VALUE),
        ([KEY], checks.UNUSABLE_VALUE),
        (f"X Key: {KEY}", checks.PROVIDER_NOT_READY),
        ({"X-Key": f"{KEY}\r\nX-Other: 1"}, checks.PROVIDER_NOT_READY),
        ({"X-Key": f"{KEY}é"}, checks.PROVIDER_NOT_READY),
    ],
)
def test_headers_that_cannot_be_sent_are_named_without_their_values(
    settings: Settings, headers: Any, id: str
) -> None:
    settings.IMAGES |= {"PROVIDER": "openai", "OPENAI_API_KEY": "sk-some-key", "OPENAI_DEFAULT_HEADERS": headers}
    message = the_one()
    assert message.id == id
    assert "OPENAI_DEFAULT_HEADERS" in message.msg
    assert KEY not in f"{message.msg} {message.hint}"


@pytest.mark.parametrize(
    ("key", "guess"), [("PROVIDR", "PROVIDER"), ("deadline", "DEADLINE"), ("IMAGE_DEADLINE", "DEADLINE")]
)
def test_an_unknown_key_is_an_error_with_a_guess(settings: Settings, key: str, guess: str) -> None:
    settings.IMAGES[key] = KEY
    message = the_one()
    assert (message.id, type(message)) == (checks.UNKNOWN_KEY, Error)
    assert f'IMAGES["{key}"]' in message.msg
    assert f'"{guess}"' in str(message.hint)


def test_a_misspelt_variable_is_named_with_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMAGE_NAME", "IMAGE_TAG", "OPENAI_API_KEY_OLD"):  # other programs', or nobody's mistake
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("IMAGE_DEADLNE", "3")
    message = the_one()
    assert message.id == "images.W025"
    assert message.msg.startswith("IMAGE_DEADLNE ")
    assert message.hint == "Did you mean IMAGE_DEADLINE?"


def test_an_unknown_key_that_resembles_nothing_lists_the_known_ones(settings: Settings) -> None:
    settings.IMAGES["XYZZY"] = 1
    assert "MAX_CONCURRENCY" in str(the_one().hint)


def test_an_unknown_key_of_a_provider_is_an_error(settings: Settings) -> None:
    settings.IMAGES["PROVIDERS"] = {"ready": provider("ReadyProvider") | {"OPTION": {"api_key": KEY}}}
    message = the_one()
    assert message.id == checks.UNKNOWN_KEY
    assert '"OPTIONS"' in str(message.hint)


@pytest.mark.parametrize("value", ["gemini", ["gemini"], 7])
def test_settings_that_are_no_dictionary_are_one_error(settings: Settings, value: object) -> None:
    settings.IMAGES = value
    assert checks.UNKNOWN_KEY in {message.id for message in run()}
    assert checks.UNUSABLE_VALUE not in {message.id for message in run()}


@pytest.mark.parametrize(
    ("key", "value", "spelling"),
    [
        ("DEADLINE", "soon", "IMAGE_DEADLINE"),
        ("MAX_CONCURRENCY", 0, "IMAGE_MAX_CONCURRENCY"),
        ("TRUSTED_NETWORKS", "10.0.0.0/40", "IMAGE_TRUSTED_NETWORKS"),
        ("TRUSTED_NETWORKS", 7, "IMAGE_TRUSTED_NETWORKS"),
        ("FAILOVER_AFTER_BILLING", "perhaps", "IMAGE_FAILOVER_AFTER_BILLING"),
        ("MAX_IMAGE_PIXELS", None, 'IMAGES["MAX_IMAGE_PIXELS"]'),
        ("PROVIDER", " , ", "IMAGE_PROVIDER"),
        ("PROVIDER", None, "IMAGE_PROVIDER"),
        ("PROVIDERS", {"mine": KEY and {"OPTIONS": {"api_key": KEY}}}, 'IMAGES["PROVIDERS"]["mine"]'),
        ("PROVIDERS", KEY, 'IMAGES["PROVIDERS"]'),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error_naming_the_setting(
    settings: Settings, key: str, value: object, spelling: str
) -> None:
    settings.IMAGES[key] = value
    message = the_one()
    assert (message.id, type(message)) == (checks.UNUSABLE_VALUE, Error)
    assert spelling in message.msg


def test_a_model_without_a_price_is_a_warning_and_a_free_one_needs_none(settings: Settings) -> None:
    settings.IMAGES["PRICES"] = {"other": 1}
    message = the_one()
    assert (message.id, type(message)) == (checks.PRICE_MISSING, Warning)
    assert "IMAGE_PRICES=ready=" in str(message.hint)
    settings.IMAGES["PROVIDER"] = "placeholder"
    assert run() == []
    settings.IMAGES |= {"SCENE_PROVIDER": "openai", "OPENAI_API_KEY": KEY, "SCENE_MODEL": "unheard-of"}
    assert [message.id for message in run()] == [checks.PRICE_MISSING]


def test_a_prompt_builder_that_cannot_be_imported_is_an_error(settings: Settings) -> None:
    settings.IMAGES["PROMPT_BUILDER"] = f"{__name__}.Bilder"
    message = the_one()
    assert (message.id, type(message)) == (checks.PROMPT_BUILDER_BROKEN, Error)


def test_a_prompt_builder_that_is_no_class_is_an_error(settings: Settings) -> None:
    settings.IMAGES["PROMPT_BUILDER"] = f"{__name__}.GOOD"
    assert the_one().id == checks.PROMPT_BUILDER_BROKEN


def test_a_storage_that_is_not_configured_is_an_error(settings: Settings) -> None:
    settings.IMAGES["STORAGE"] = "defalt"
    message = the_one()
    assert (message.id, type(message)) == (checks.STORAGE_BROKEN, Error)
    assert '"default"' in str(message.hint)


def test_a_storage_that_cannot_be_imported_is_an_error(settings: Settings) -> None:
    settings.STORAGES = settings.STORAGES | {"images": {"BACKEND": "nowhere.Storage", "OPTIONS": {"secret": KEY}}}
    settings.IMAGES["STORAGE"] = "images"
    assert the_one().id == checks.STORAGE_BROKEN


def test_a_media_root_where_nothing_can_be_written_is_a_warning(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings.MEDIA_ROOT = str(tmp_path / "file" / "media")
    message = the_one()
    assert (message.id, type(message)) == (checks.MEDIA_ROOT_UNWRITABLE, Warning)
    assert "MEDIA_ROOT" in message.msg


def test_an_empty_media_root_is_a_warning(settings: Settings) -> None:
    settings.MEDIA_ROOT = ""
    assert the_one().id == checks.MEDIA_ROOT_UNWRITABLE


def test_a_media_root_that_can_still_be_made_is_fine_and_is_not_made(settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = str(tmp_path / "media-to-be")
    assert run() == []
    assert not (tmp_path / "media-to-be").exists()


def test_a_media_root_in_folders_that_are_missing_is_fine_since_the_first_image_makes_them(
    settings: Settings, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = str(tmp_path / "missing" / "media")
    assert run() == []
    assert not (tmp_path / "missing").exists()


def test_a_storage_elsewhere_is_not_looked_into(settings: Settings) -> None:
    memory = "django.core.files.storage.InMemoryStorage"
    settings.STORAGES = settings.STORAGES | {"default": {"BACKEND": memory}}
    settings.MEDIA_ROOT = ""
    assert run() == []


def test_a_missing_public_url_is_a_warning_in_production_only(settings: Settings) -> None:
    settings.IMAGES["PUBLIC_URL"] = ""
    message = the_one()
    assert (message.id, type(message)) == (checks.PUBLIC_URL_MISSING, Warning)
    settings.DEBUG = True
    assert run() == []


def test_a_path_of_another_tool_is_ignored_with_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    del settings.IMAGES["PUBLIC_URL"]
    monkeypatch.setenv("PUBLIC_URL", "/app")
    message = the_one()
    assert (message.id, type(message)) == (checks.PUBLIC_URL_MISSING, Warning)
    assert "is a path" in message.msg
    assert conf.public_url == ""


@pytest.mark.parametrize(
    "url", ["https://", "ftp://example.com", "http:/example.com", "https://a.example/?b=c", "https://a b", "a:b:c"]
)
def test_a_public_url_that_is_no_address_is_an_error(settings: Settings, url: str) -> None:
    settings.IMAGES["PUBLIC_URL"] = url
    message = the_one()
    assert (message.id, type(message)) == (checks.PUBLIC_URL_UNUSABLE, Error)


@pytest.mark.parametrize("url", ["images.example.com", "http://localhost:8000", "https://example.com/service/"])
def test_addresses_that_the_contract_allows_are_fine(settings: Settings, url: str) -> None:
    settings.IMAGES["PUBLIC_URL"] = url
    assert run() == []


@pytest.mark.parametrize("name", ["CORS_ALLOW_ALL_ORIGINS", "CORS_ORIGIN_ALLOW_ALL"])
def test_cors_open_to_all_is_a_warning(settings: Settings, name: str) -> None:
    setattr(settings, name, True)
    message = the_one()
    assert (message.id, type(message)) == (checks.CORS_OPEN_TO_ALL, Warning)
    assert name in message.msg


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "0.0.0.0/1", "52.0.0.0/8", "2600::/12"])
def test_a_trusted_network_full_of_strangers_is_a_warning(settings: Settings, network: str) -> None:
    settings.IMAGES["TRUSTED_NETWORKS"] = f"127.0.0.0/8,{network}"
    message = the_one()
    assert (message.id, type(message)) == (checks.TRUSTED_NETWORK_TOO_WIDE, Warning)
    assert network in message.msg


def test_trusted_networks_that_are_internal_are_fine(settings: Settings) -> None:
    settings.IMAGES["TRUSTED_NETWORKS"] = "10.0.0.0/8,100.64.0.0/10,192.168.0.0/16,fc00::/7,::1/128,203.0.113.0/24"
    assert run() == []


def urlconf(name: str, patterns: list[Any], monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    module = types.ModuleType(name)
    module.urlpatterns = patterns  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    settings.ROOT_URLCONF = name


OURS = path("", include("images.urls"))


@pytest.mark.parametrize(
    ("patterns", "check_id", "words"),
    [
        ([], checks.URLS_MISSING, "does not include"),
        ([path("media/<path:path>", serve), OURS], checks.URL_SHADOWED, "/media/draft-images/check is answered by"),
        ([path("<path:page>", serve, name="page"), OURS], checks.URL_SHADOWED, "(page)"),
        (i18n_patterns(OURS), checks.URL_DEPENDS_ON_LANGUAGE, "/en/media/draft-images/check, /ru/media/"),
        ([path("blog/", serve), OURS], "", ""),
        ([OURS, path("<path:page>", serve)], "", ""),
        ([path("pictures/", include("images.urls"))], "", ""),
        ([path("", include("images.urls.media"))], "", ""),
        (i18n_patterns(path("", include("images.urls.media"))), checks.URL_DEPENDS_ON_LANGUAGE, "/ru/media/"),
    ],
)
def test_urls_that_are_wired_wrongly_are_warnings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, patterns: list[Any], check_id: str, words: str
) -> None:
    urlconf("host_urls", patterns, monkeypatch, settings)
    messages = run()
    assert {message.id for message in messages} == ({check_id} if check_id else set())
    assert all(words in message.msg and message.hint for message in messages[:1])


def test_urls_below_a_path_that_a_proxy_takes_off_are_fine(settings: Settings) -> None:
    settings.FORCE_SCRIPT_NAME = "/pics"
    set_script_prefix("/pics/")
    try:
        assert run() == []
    finally:
        set_script_prefix("/")


@pytest.mark.parametrize("name", ["rest_framework", "rest_framework.authtoken"])
def test_an_app_that_the_api_needs_and_that_is_not_installed_is_a_warning(settings: Settings, name: str) -> None:
    with override_settings(INSTALLED_APPS=[app for app in settings.INSTALLED_APPS if app != name]):
        message = the_one()
    assert (message.id, type(message)) == (checks.APP_MISSING, Warning)
    assert name in str(message.hint)


def test_the_pictures_alone_need_none_of_these_apps(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    urlconf("pictures_only", [path("", include("images.urls.media"))], monkeypatch, settings)
    assert reverse("images:media", kwargs={"path": "42/hero.png"}) == "/media/draft-images/42/hero.png"
    with pytest.raises(Resolver404):
        resolve("/api/images/")
    with override_settings(INSTALLED_APPS=[app for app in settings.INSTALLED_APPS if "rest_framework" not in app]):
        assert run() == []


@pytest.mark.parametrize("key", ["AUTHENTICATION_CLASSES", "PERMISSION_CLASSES"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["no.such.Class"], "cannot be imported"),
        ("IsAuthenticated", "cannot be imported"),
        (["images.checks.TAG"], "is not a class"),
        ([], "names no class"),
        (7, "must be a list"),
    ],
)
def test_classes_of_the_api_that_cannot_be_used_are_an_error(
    settings: Settings, key: str, value: Any, words: str
) -> None:
    settings.IMAGES |= {key: value}
    message = the_one()
    assert (message.id, type(message)) == (checks.UNUSABLE_VALUE, Error)
    assert f'IMAGES["{key}"]' in message.msg
    assert words in message.msg


def test_authtoken_is_not_missed_if_no_caller_uses_tokens(settings: Settings) -> None:
    settings.IMAGES |= {"AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"]}
    with override_settings(INSTALLED_APPS=[app for app in settings.INSTALLED_APPS if not app.endswith("authtoken")]):
        assert run() == []


def test_the_checks_ask_no_database_and_no_network(settings: Settings) -> None:
    """No `django_db` mark: a query fails this test. No SDK is loaded either, so that commands start fast."""
    code = (
        "import django, sys; django.setup(); from django.core.checks import run_checks; run_checks(tags=['images']); "
        "print([name for name in ('openai', 'google.genai', 'PIL') if name in sys.modules])"
    )
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": ""}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", ["no.such.module", "images.tasks.nothing", "images.conf.SETTINGS"])
def test_a_queue_that_cannot_be_used_is_an_error(settings: Settings, path: str) -> None:
    settings.IMAGES |= {"QUEUE": path}
    message = the_one()
    assert (message.id, type(message)) == (checks.QUEUE_BROKEN, Error)
    assert path in message.msg


def test_workers_without_a_queue_are_an_error(settings: Settings) -> None:
    settings.IMAGES |= {"RUN_ON_WORKERS": True}
    message = the_one()
    assert message.id == checks.UNUSABLE_VALUE
    assert "needs a queue" in message.msg


def test_the_old_services_text_model_is_not_taken_over_silently(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "gpt-4o")
    message = the_one()
    assert (message.id, type(message)) == (checks.OLD_TEXT_MODEL, Warning)
    assert "IMAGE_SCENE_MODEL" in str(message.hint)
    settings.IMAGES |= {"SCENE_PROVIDER": "placeholder"}
    assert run() == []


@pytest.mark.parametrize(
    ("setting", "check_id", "told"),
    [
        ({"SCENE_PROVIDER": "openai"}, checks.PROVIDER_NOT_READY, "OPENAI_API_KEY is not set"),
        (
            {"SCENE_PROVIDER": "openai", "SCENE_MODEL": "gpt-4o", "OPENAI_API_KEY": "sk-1"},
            checks.MODEL_RETIRED,
            "gpt-4o",
        ),
        ({"SCENE_PROVIDER": "acme"}, checks.UNUSABLE_VALUE, "openai, gemini, placeholder"),
        ({"SCENE_WRITER": "myapp.Writer"}, checks.SCENE_WRITER_BROKEN, "cannot import"),
        ({"SCENE_WRITER": "images.models.Status"}, checks.SCENE_WRITER_BROKEN, "`write` method"),
    ],
)
def test_what_keeps_scenes_from_being_thought_up(
    settings: Settings, setting: dict[str, str], check_id: str, told: str
) -> None:
    settings.IMAGES |= setting
    message = the_one()
    assert message.id == check_id
    assert told in message.msg
