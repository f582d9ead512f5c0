"""The documentation is true: its snippets run, its tables say what the code says, its links lead somewhere."""

from __future__ import annotations

import ast
import base64
import json
import re
import subprocess
import sys
import threading
import types
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from django.core.management import call_command
from pytest_django import Settings
from rest_framework import exceptions as drf_errors

from images import checks
from images.api.errors import _CODES, PayloadTooLarge, RequestTimeout
from images.conf import SETTINGS, Setting
from images.conformance import ProviderConformance
from images.exceptions import ImagesError
from images.services import generate_image
from images.services.prompts import get_prompt_builder
from tests.fakes.providers import png

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text() for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
}
README, SETTINGS_PAGE, API = PAGES["README.md"], PAGES["docs/settings.md"], PAGES["docs/api.md"]
EVERYTHING = "\n".join(PAGES.values())

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
#: Those of the app, which have a test of their own.
APP_VARIABLES = {variable for setting in SETTINGS.values() for variable in setting.variables}
_ENVIRONMENT_READS = {"text", "flag", "integer", "listed", "cors_origins"}


def prose(page: str) -> str:
    """A page without its code blocks, in which `#` is a comment."""
    return _FENCED.sub("", page)


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one that is not below it."""
    start = re.search(rf"^(#+) {re.escape(heading)}\n", page, re.MULTILINE)
    assert start, f"there is no heading {heading!r}"
    rest = page[start.end() :]
    end = re.search(rf"^#{{1,{len(start[1])}}} ", _FENCED.sub(lambda block: "x" * len(block[0]), rest), re.MULTILINE)
    return rest[: end.start()] if end else rest


def snippets(text: str, language: str = "python") -> list[str]:
    return [code for found, code in _FENCED.findall(text) if found == language]


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, "snippet", "exec"), names)
    return names


def module(monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    """Make a module of a snippet, so that settings can name what is in it."""
    made = types.ModuleType(name)
    made.__dict__.update(run(code, __name__=name))
    package, _, leaf = name.rpartition(".")
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setattr(sys.modules[package], leaf, made, raising=False)
    monkeypatch.setitem(sys.modules, name, made)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- snippets ---------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_three_line_provider_works(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    provider, entry = snippets(section(README, "Adding a provider"))
    module(monkeypatch, "myapp.providers", provider)
    monkeypatch.chdir(ROOT)
    settings.IMAGES = run(entry)["IMAGES"]
    image = generate_image(content_item_id="1", title="A title")
    assert (image.provider, image.mime_type) == ("one", "image/webp")


@pytest.fixture
def acme() -> Iterator[str]:
    """The address of a server that speaks the documentation's made-up protocol."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            is_valid = asked["ratio"] == "4:3" and self.headers["Authorization"] == "Bearer k"
            body = json.dumps({"image": base64.b64encode(png(4, 3)).decode()} if is_valid else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Request-Id", "acme-7")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/generate"
        server.shutdown()


@pytest.mark.django_db
def test_the_provider_that_asks_a_server_works(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, acme: str
) -> None:
    provider, entry = snippets(section(PAGES["docs/python.md"], "A provider that asks a server"))
    module(monkeypatch, "myapp.providers", provider)
    settings.IMAGES = run(entry)["IMAGES"]
    settings.IMAGES["PROVIDER"] = "acme"
    settings.IMAGES["PROVIDERS"]["acme"]["OPTIONS"] |= {"api_key": "k", "base_url": acme}
    image = generate_image(content_item_id="1", title="A title", variant="inline")
    assert (image.provider, image.model, image.width) == ("acme", "acme-1", 4)
    assert image.attempts[0]["request_id"] == "acme-7"


def _documented_conformance() -> type[ProviderConformance]:
    provider = snippets(section(PAGES["docs/python.md"], "A provider that asks a server"))[0]
    tests = snippets(section(PAGES["docs/python.md"], "Testing a provider"))[0]
    names = run(provider) | run(tests.replace("from myapp.providers import AcmeProvider\n", ""))
    names["TestAcme"].make_provider.__globals__["AcmeProvider"] = names["AcmeProvider"]
    return names["TestAcme"]  # type: ignore[no-any-return]


class TestTheDocumentedProvider(_documented_conformance()):  # type: ignore[misc]
    """The provider of the documentation passes the tests that the documentation shows."""


def test_the_plug_in_lines_are_all_that_a_new_project_needs(tmp_path: Path) -> None:
    call_command("startproject", "mysite", str(tmp_path))
    settings_lines, media_root, urls_lines = snippets(section(README, "Plugging it into a project"))[:3]
    for name, lines in (("settings.py", settings_lines + media_root), ("urls.py", urls_lines)):
        file = tmp_path / "mysite" / name
        file.write_text(f"{file.read_text()}\n{lines}")
    script = """
import io
import django
django.setup()
from django.core.management import call_command
from django.test import Client
from images.services import generate_image
call_command("check", fail_level="WARNING", stdout=io.StringIO())
call_command("migrate", verbosity=0)
image = generate_image(content_item_id="42", title="A quiet harbour at dawn")
client = Client(headers={"host": "localhost"})
answer = client.get(image.public_url())
page = client.get("/api/images/", headers={"accept": "text/html"})
print(answer.status_code, answer["Content-Type"], page.status_code, page["Content-Type"])
"""
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "200 image/png 401 text/html; charset=utf-8\n", done.stderr


def test_other_prompts_are_built(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    words, entry, plain = snippets(section(PAGES["docs/python.md"], "Other prompts"))
    settings.IMAGES = run(entry)["IMAGES"]
    module(monkeypatch, "myapp.prompts", words)
    arguments = {"title": "Boats", "description": "", "variant": "hero", "seed": 1}
    assert get_prompt_builder().build(**arguments).style == "watercolour"  # type: ignore[arg-type]
    assert run(plain)["Plain"]().build(**arguments).text == "A hero picture of Boats"


@pytest.mark.parametrize("page", PAGES)
def test_every_snippet_can_be_parsed(page: str) -> None:
    for code in snippets(PAGES[page]):
        ast.parse(code)
    for code in snippets(PAGES[page], "json"):
        json.loads(code)


# --- tables -----------------------------------------------------------------------------------------------


def description(name: str) -> str:
    """What is said of a setting: a section of its own in the page of settings, or a row of a table on any page."""
    if f"\n### `{name}`\n" in SETTINGS_PAGE:
        assert f"(docs/settings.md#{slug(name)})" in README
        return section(SETTINGS_PAGE, f"`{name}`")
    row = re.search(rf"^\| (?:`[^`]+`, )*`{re.escape(name)}`.*$", "\n".join(PAGES.values()), re.MULTILINE)
    return row[0] if row else ""


def heading(setting: Setting[Any]) -> str:
    return setting.variables[0] if setting.variables else setting.key


def written_default(setting: Setting[Any]) -> str:
    default = setting.default
    if not default and not isinstance(default, bool):
        return "default: none"
    if isinstance(default, bool):
        default = "on" if default else "off"
    return f"default `{default:.15g}`" if isinstance(default, int | float) else f"default `{default}`"


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_the_pages_say_of_a_setting_what_its_declaration_says(setting: Setting[Any]) -> None:
    names = ", ".join(f"`{name}`" for name in setting.variables or [setting.spelling])
    row = f"| [{names}](docs/settings.md#{slug(heading(setting))}) | {setting.help} |"
    assert row in README.splitlines(), f"put this row into README.md: {row}"
    also = "".join(f", or `{name}` in the environment" for name in setting.variables[1:])
    source = f'`IMAGES["{setting.key}"]`{also}' if setting.variables else f'`IMAGES["{setting.key}"]` only'
    line = f"{source} · {setting.type} · {written_default(setting)}"
    written = description(heading(setting)).lstrip().partition("\n")[0]
    assert written.startswith(line), f"put this line under `{heading(setting)}` in docs/settings.md: {line}"


def project_variables() -> set[str]:
    """The environment variables that the project's own code reads, from its source."""
    found: set[str] = set()
    for file in (ROOT / "trygo_backend").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                found |= set(_variables(node.args)) if called in _ENVIRONMENT_READS else set()
    return found


def _variables(arguments: Iterable[ast.expr]) -> Iterator[str]:
    for argument in arguments:
        for node in ast.walk(argument):
            if isinstance(node, ast.Constant) and re.fullmatch(r"[A-Z][A-Z_]{2,}", str(node.value)):
                yield str(node.value)


def test_every_variable_of_the_project_is_described() -> None:
    variables = project_variables()
    assert {"PORT", "SECRET_KEY", "DEVELOPMENT_FRONTEND_URL", "WEB_CONCURRENCY"} <= variables
    nested = {"PRODUCTION_FRONTEND_URL", "DEVELOPMENT_FRONTEND_URL"}  # they share a heading with FRONTEND_URL
    assert all(f"`{name}`" in description("FRONTEND_URL") for name in nested)
    assert {name for name in variables - nested - set(APP_VARIABLES) if not description(name)} == set()


def subclasses(cls: type[ImagesError]) -> Iterator[type[ImagesError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from subclasses(below)


def test_the_table_of_errors_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (yes|no) \|", section(API, "Errors"), re.MULTILINE)
    documented = {code: (int(status), retryable == "yes") for code, status, retryable in rows}
    assert len(rows) == len(documented)
    ours = [cls for cls in subclasses(ImagesError) if cls.__module__ == "images.exceptions" and hasattr(cls, "code")]
    expected = {cls.code: (cls.status_code, False) for cls in ours}
    expected |= {cls.code: (cls.status_code, True) for cls in ours if cls.retryable}
    # Content negotiation never refuses (TolerantNegotiation).
    framework = {cls: code for cls, code in _CODES.items() if cls is not drf_errors.NotAcceptable}
    expected |= {code: (cls.status_code, False) for cls, code in framework.items()}
    expected[PayloadTooLarge.default_code] = (PayloadTooLarge.status_code, False)
    expected[RequestTimeout.default_code] = (RequestTimeout.status_code, True)
    # ProviderFailure is no error of its own: it has no code but the root's.
    expected[ImagesError.code] = (ImagesError.status_code, False)
    assert documented == expected


def test_every_check_command_and_log_event_is_described() -> None:
    ids = {value for value in vars(checks).values() if re.fullmatch(r"images\.[EW]\d{3}", str(value))}
    commands = {file.stem for file in ROOT.glob("images/management/commands/[!_]*.py")}
    source = "\n".join(file.read_text() for file in ROOT.glob("images/**/*.py"))
    events = set(re.findall(r'log_event\(\s*\w+,\s*[\w. ]+,\s*"(\w+)"', source))
    assert {"image_deleted", "generation_finished"} <= events
    assert {name for name in ids | events if f"`{name}`" not in EVERYTHING} == set()
    assert {name for name in commands if f"manage.py {name}" not in EVERYTHING} == set()


def test_every_make_target_that_is_named_exists() -> None:
    code = "\n".join(code for _, code in _FENCED.findall(EVERYTHING)) + "\n".join(
        re.findall(r"`make [^`]+`", EVERYTHING)
    )
    named = set(re.findall(r"(?:^|`|&& )make ([a-z][a-z-]*)", code, re.MULTILINE))
    assert {"demo", "test", "serve", "lint"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


# --- links, paths, pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_repository_leads_somewhere(page: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(PAGES[page])):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        file = (ROOT / page).parent / path if path else ROOT / page
        anchors = {slug(heading) for heading in _HEADING.findall(prose(file.read_text()))} if anchor else {""}
        if not file.exists() or anchor not in anchors:
            broken.append(target)
    assert broken == []


def test_only_paths_of_the_api_and_of_an_installation_are_named() -> None:
    """A path of the machine on which somebody wrote the documentation tells readers nothing."""
    addresses = {"admin", "api", "health", "media", "static", "v1", "v1beta"}
    places = {"etc", "opt", "path", "run", "srv", "tmp", "usr", "var"}
    named = re.findall(r"(?<![\w.:/>~*…-])/([a-z]\w*)/", EVERYTHING)
    assert set(named) <= addresses | places


def test_the_drawing_is_well_formed_and_carries_its_own_description() -> None:
    drawing = ElementTree.parse(ROOT / "docs/path-of-a-request.svg").getroot()
    assert drawing.find("{http://www.w3.org/2000/svg}title") is not None
