"""`manage.py images_doctor`: screen, JSON, exit status, no keys, and one real image."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command, execute_from_command_line
from pytest_django.fixtures import Settings

from images.models import GeneratedImage
from images.providers.models import utc_today
from images.services.diagnostics import known_secrets, without_secrets
from images.services.probes import broken
from tests.fakes.doctor import GEMINI_KEY, OPENAI_KEY, Configure
from tests.fakes.provider_server import ProviderServer

pytestmark = pytest.mark.django_db(transaction=True)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def run(*arguments: str, stderr: StringIO | None = None, **options: Any) -> tuple[str, int]:
    """What it prints and its exit status."""
    out = StringIO()
    try:
        call_command("images_doctor", *arguments, stdout=out, stderr=stderr or StringIO(), **options)
    except SystemExit as left:
        return out.getvalue(), int(left.code or 0)
    return out.getvalue(), 0


def ending_in(server: ProviderServer, days: int) -> None:
    server.models = {"gpt-image-2.6-flare": {"shutdown_date": str(utc_today() + timedelta(days=days))}}


def test_where_all_is_well_it_says_so(configure: Configure) -> None:
    out, status = run(no_color=True)
    assert status == 0
    assert out.endswith("Everything that was looked at works.\n")
    assert "->" not in out


def test_status_2_where_something_needs_attention(configure: Configure, provider_server: ProviderServer) -> None:
    ending_in(provider_server, 20)
    out, status = run(no_color=True)
    assert status == 2
    assert "  attention  openai: gpt-image-2.6-flare: the provider will shut this model down on " in out
    assert "             -> Set OPENAI_IMAGE_MODEL" in out
    assert out.endswith("It works. 1 needs attention, 9 ok.\n")
    assert run("--warn-days", "10")[1] == 0


def test_status_1_where_something_is_broken_whatever_else_there_is(
    configure: Configure, provider_server: ProviderServer, settings: Settings
) -> None:
    settings.DEBUG = True
    provider_server.script_models("http_401")
    out, status = run(no_color=True)
    assert status == 1
    assert out.endswith("1 broken, 1 needs attention, 8 ok.\n")


def test_a_configuration_that_stops_other_commands_does_not_stop_this_one(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(PROVIDER="opnai")
    with pytest.raises(CommandError):
        call_command("check", stdout=StringIO(), stderr=StringIO())
    with pytest.raises(SystemExit) as left:  # call_command would leave the checks out
        execute_from_command_line(["manage.py", "images_doctor", "--no-color"])
    assert left.value.code == 1
    assert "opnai: there is no provider with this name." in capsys.readouterr().out


def test_json_is_one_object_with_a_next_step_for_every_finding(
    configure: Configure, provider_server: ProviderServer
) -> None:
    ending_in(provider_server, 20)
    out, status = run("--json")
    told = json.loads(out)
    assert (told["status"], told["exit_status"], status) == ("attention", 2, 2)
    assert all(set(finding) == {"section", "level", "sentence", "next_step"} for finding in told["findings"])
    assert all(finding["next_step"] for finding in told["findings"])


def test_colours_are_for_terminals(configure: Configure) -> None:
    assert "\x1b[" in run(force_color=True)[0]
    assert "\x1b[" not in run(no_color=True)[0]


def test_progress_is_for_terminals(configure: Configure) -> None:
    terminal, log = Terminal(), StringIO()
    run(stderr=terminal)
    run(stderr=log)
    assert "Looking at: Configuration ..." in terminal.getvalue()
    assert log.getvalue() == ""


@pytest.mark.parametrize("days", ["-1", "soon", "1.5"])
def test_days_are_whole_numbers(days: str) -> None:
    with pytest.raises(CommandError, match="whole number of days"):
        run(f"--warn-days={days}")


class TestSecrets:
    @pytest.mark.parametrize("mode", ["ok", "echo", "http_401", "http_403", "http_404", "html", "http_500"])
    @pytest.mark.parametrize("form", ["--json", "--no-color"])
    def test_no_key_is_printed_or_logged(
        self,
        configure: Configure,
        provider_server: ProviderServer,
        settings: Settings,
        caplog: pytest.LogCaptureFixture,
        mode: str,
        form: str,
    ) -> None:
        configure(PROVIDER="openai,gemini")
        provider_server.script_models(mode, mode)
        caplog.set_level("DEBUG", logger="images")
        stderr = StringIO()
        out, _ = run(form, "--generate", stderr=stderr)
        shown = out + stderr.getvalue() + caplog.text
        for secret in (OPENAI_KEY, GEMINI_KEY, settings.SECRET_KEY):
            assert secret not in shown

    def test_a_secret_in_somebody_elses_sentence_is_blotted_out(
        self, configure: Configure, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SOME_API_TOKEN", "token-of-a-neighbour")
        monkeypatch.setitem(settings.DATABASES["default"], "PASSWORD", "pass-word-1")
        configure(OPENAI_DEFAULT_HEADERS={"X-Tenant": "Token header-secret"})
        known = known_secrets()
        own = (OPENAI_KEY, GEMINI_KEY, settings.SECRET_KEY)
        for secret in (*own, "token-of-a-neighbour", "pass-word-1", "header-secret"):
            finding = broken("Database", f"FATAL: {secret} is wrong", f"Look at {secret}")
            assert secret not in str(without_secrets(finding, known))


class TestGenerate:
    def test_says_what_came_in_an_images_place(self, configure: Configure, provider_server: ProviderServer) -> None:
        provider_server.script("svg")
        out, status = run("--generate", "--no-color")
        assert status == 1
        assert "it is an SVG" in " ".join(out.split())

    def test_makes_one_real_image_and_deletes_it_again(
        self, configure: Configure, provider_server: ProviderServer, media_root: Path
    ) -> None:
        out, status = run("--generate", no_color=True)
        assert status == 0
        assert "openai (gpt-image-2.6-flare) made an image of 1536x864 in " in out
        assert [request.method for request in provider_server.requests] == ["GET", "POST"]
        assert not GeneratedImage.objects.exists()
        assert [path for path in media_root.rglob("*") if path.is_file()] == []

    def test_nothing_is_paid_for_unasked(self, configure: Configure, provider_server: ProviderServer) -> None:
        run("--public-url")
        assert {request.method for request in provider_server.requests} == {"GET"}

    @pytest.mark.parametrize("mode", ["http_401", "svg", "reset"])
    def test_what_failed_is_cleaned_up_too(
        self, configure: Configure, provider_server: ProviderServer, media_root: Path, mode: str
    ) -> None:
        provider_server.script(mode)
        out, status = run("--generate", no_color=True)
        assert status == 1
        assert "No image could be made" in out
        assert not GeneratedImage.objects.exists()
        assert [path for path in media_root.rglob("*") if path.is_file()] == []

    def test_an_interruption_is_cleaned_up_too(self, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(stem: str) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("images.storage.check_space", interrupt)
        with pytest.raises(CommandError) as caught:
            run("--generate")
        assert caught.value.returncode == 130
        assert not GeneratedImage.objects.exists()

    def test_a_failover_needs_attention(self, configure: Configure, provider_server: ProviderServer) -> None:
        configure(PROVIDER="openai,gemini")
        provider_server.script("http_500")
        out, status = run("--generate", no_color=True)
        assert status == 2
        assert "after others had failed (openai: provider_error)" in out
