"""The app in a host project: it works whatever the project has set, and changes nothing there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plugging.projects import ROOT, follow_commands, make_host, see


@dataclass(frozen=True)
class Variant:
    """A kind of project.

    Attributes:
        settings: Lines at the end of its `settings.py`.
        urls: Lines at the end of its `urls.py` instead of README's.
        outside: What a proxy takes off the addresses.
        inside: What its `urls.py` puts before the app's addresses.
        admin: Whether its users have what the admin asks for.
        media: The folder in which the pictures are.
    """

    settings: str = ""
    urls: str | None = None
    outside: str = ""
    inside: str = ""
    admin: bool = True
    media: str = "media"


#: These users have no permissions that the API could ask for.
OWN_USERS = """
AUTH_USER_MODEL = "newsroom.Journalist"
IMAGES["PERMISSION_CLASSES"] = ["rest_framework.permissions.IsAuthenticated"]
"""
OWN_REST_DEFAULTS = """
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["newsroom.rest.NobodyGetsIn"],
    "DEFAULT_PERMISSION_CLASSES": ["newsroom.rest.NobodyMay"],
    "DEFAULT_THROTTLE_CLASSES": ["newsroom.rest.AlwaysTooMany"],
    "DEFAULT_RENDERER_CLASSES": ["newsroom.rest.Enveloped"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.FormParser"],
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.NamespaceVersioning",
    "ALLOWED_VERSIONS": ["7"],
    "DEFAULT_PAGINATION_CLASS": None,
    "EXCEPTION_HANDLER": "newsroom.rest.handle_exception",
    "UNAUTHENTICATED_USER": None,
    "NON_FIELD_ERRORS_KEY": "other",
    "DATETIME_FORMAT": "%d.%m.%Y",
}
"""
ATOMIC = 'for _database in DATABASES.values():\n    _database["ATOMIC_REQUESTS"] = True\n'
NO_TIME_ZONES = 'USE_TZ = False\nTIME_ZONE = "Asia/Tokyo"\n'
OWN_STORAGE = """
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "pictures": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": BASE_DIR / "pictures"},
    },
}
IMAGES["STORAGE"] = "pictures"
"""
SECOND_DATABASE = """
DATABASES["pictures"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "pictures.sqlite3"}
DATABASE_ROUTERS = ["newsroom.routers.PicturesRouter"]
"""
LOGIN_REQUIRED = 'MIDDLEWARE += ["django.contrib.auth.middleware.LoginRequiredMiddleware"]\n'
OTHER_PREFIX = 'from django.urls import include\nurlpatterns += [path("pictures/", include("images.urls"))]\n'

EVERYTHING = Variant(
    OWN_USERS + OWN_REST_DEFAULTS + NO_TIME_ZONES + OWN_STORAGE + SECOND_DATABASE + ATOMIC + "APPEND_SLASH = False\n",
    OTHER_PREFIX,
    inside="/pictures",
    admin=False,
    media="pictures",
)
ALONE = {
    "own users": Variant(OWN_USERS, admin=False),
    "own REST defaults": Variant(OWN_REST_DEFAULTS),
    "atomic requests": Variant(ATOMIC),
    "no time zones": Variant(NO_TIME_ZONES),
    "under a path of the server's": Variant('FORCE_SCRIPT_NAME = "/backend"\n', outside="/backend"),
    "under another prefix": Variant("", OTHER_PREFIX, inside="/pictures"),
    "own storage": Variant(OWN_STORAGE, media="pictures"),
    "second database": Variant(SECOND_DATABASE),
    "second database, atomic requests": Variant(SECOND_DATABASE + ATOMIC),
    "no slashes appended": Variant("APPEND_SLASH = False\n"),
    "login required": Variant(LOGIN_REQUIRED),
}


def check_visit(variant: Variant, folder: Path) -> None:
    host = make_host(folder, settings=variant.settings, urls=variant.urls)
    facts = host.visit(variant.outside, variant.inside)
    check_api(facts, variant, folder)
    check_own_code(facts, variant)
    check_host_is_untouched(facts, variant)


def check_api(facts: Any, variant: Variant, folder: Path) -> None:
    made = facts["made"]["body"]
    assert facts["made"]["status"] == facts["with_slash"]["status"] == 200, made
    assert f"{variant.outside}{variant.inside}/media/draft-images/42/hero-" in made["imageUrl"]
    created = datetime.fromisoformat(made["createdAt"])
    assert made["createdAt"].endswith("Z")
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=5)
    assert (facts["served"]["status"], facts["served"]["type"]) == (200, "image/png")
    assert facts["created"]["status"] == 400
    assert facts["created"]["body"]["error"] == "contentItemId and title are required"
    assert (facts["stranger"]["status"], facts["stranger"]["body"]["code"]) == (401, "not_authenticated")
    assert [image["id"] for image in facts["listed"]["body"]["results"]][1:] == [made["id"]]
    assert (facts["unknown"]["status"], facts["unknown"]["body"]["code"]) == (404, "not_found")
    assert facts["deleted"]["body"] == {"success": True, "id": made["id"]}
    assert facts["gone"] == 404
    kept = len(list((folder / variant.media / "draft-images").glob("*/hero-*.png")))
    assert kept == (2 if variant.settings == LOGIN_REQUIRED else 4)  # the host's own views ask for a login, too


def check_own_code(facts: Any, variant: Variant) -> None:
    if variant.settings != LOGIN_REQUIRED:
        assert facts["illustrated"]["type"] == facts["aillustrated"]["type"] == "image/png"
        assert "on_commit" in facts["within"]["refused"]
    assert "/media/draft-images/44/hero-" in facts["command"]


def check_host_is_untouched(facts: Any, variant: Variant) -> None:
    assert facts["settings_changed"] == []
    assert not facts["logging_changed"]
    assert set(facts["admin"].values()) == ({200} if variant.admin else set())
    assert len(facts["admin"]) == (10 if variant.admin else 0)
    assert facts["owners_left"] == [None]
    if OWN_REST_DEFAULTS in variant.settings:
        assert facts["own_view"]["body"] == {"envelope": {"the host says": "The host lets nobody in."}}


def test_a_project_that_follows_readme(tmp_path: Path) -> None:
    check_visit(Variant(), tmp_path / "site")


EXISTING_SETTINGS = """
INSTALLED_APPS = (*INSTALLED_APPS, "rest_framework", "rest_framework.authtoken", "accounts")
MIDDLEWARE += ["django.middleware.locale.LocaleMiddleware"]
AUTH_USER_MODEL = "accounts.Account"
MEDIA_ROOT, MEDIA_URL = str(BASE_DIR / "uploads"), "/media/"
"""
EXISTING_URLS = """
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.conf.urls.static import static
from django.http import HttpResponse
from django.urls import path, re_path
from rest_framework.authtoken.views import obtain_auth_token

urlpatterns += [path("api/token/", obtain_auth_token), *static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT)]
urlpatterns += i18n_patterns(re_path("^(?P<page>.*)$", lambda request, page: HttpResponse("a page of the site")))
"""
ACCOUNTS = """
from django.contrib.auth.models import AbstractUser, BaseUserManager
from django.db import models


class Accounts(BaseUserManager):
    def create_superuser(self, email, password=None, **values):
        account = self.model(email=email, is_staff=True, is_superuser=True, **values)
        account.set_password(password)
        account.save()
        return account


class Account(AbstractUser):
    username = None
    email = models.EmailField(unique=True)
    USERNAME_FIELD, REQUIRED_FIELDS = "email", []
    objects = Accounts()
"""


@pytest.mark.slow
def test_readme_in_a_project_that_has_all_of_this_already(tmp_path: Path) -> None:
    """REST framework, uploads, accounts with e-mail addresses, a catch-all, and addresses for each language."""
    host = make_host(
        tmp_path / "site",
        before=EXISTING_SETTINGS,
        media_root=False,
        urls_before=EXISTING_URLS,
        newsroom=False,
        DJANGO_SUPERUSER_PASSWORD="of-a-stranger",
    )
    accounts = host.folder / "accounts"
    accounts.mkdir()
    (accounts / "__init__.py").touch()
    (accounts / "models.py").write_text(ACCOUNTS)
    (host.folder / "uploads").mkdir()
    (host.folder / "uploads" / "contract.pdf").write_text("an upload")
    host.run("manage.py", "makemigrations", "accounts", "--verbosity", "0")
    follow_commands(host, "--email", "ann@example.com", name="ann@example.com")
    assert "no issues" in host.run("manage.py", "check", "--fail-level", "WARNING", "--tag", "images").stdout
    assert see(host, "/media/contract.pdf") == (200, "application/pdf")
    assert sorted(path.name for path in (host.folder / "uploads").iterdir()) == ["contract.pdf", "draft-images"]


def test_a_project_that_differs_in_everything(tmp_path: Path) -> None:
    check_visit(EVERYTHING, tmp_path / "site")


def test_a_project_that_gives_the_app_another_label(tmp_path: Path) -> None:
    # README's own lines, before the app's name in INSTALLED_APPS is replaced.
    variant = Variant('INSTALLED_APPS[INSTALLED_APPS.index("images")] = "host.ai_images.AIImages"\n')
    host = make_host(tmp_path / "site", settings=variant.settings)
    (host.folder / "host" / "ai_images.py").write_text(relabelled())
    facts = host.visit()
    check_api(facts, variant, host.folder)
    check_own_code(facts, variant)
    check_host_is_untouched(facts, variant)
    host.run("manage.py", "makemigrations", "--check", "--dry-run")
    for command in ("reconcile_images", "images_doctor"):
        assert "Traceback" not in host.run("manage.py", command, check=False).stderr
    assert host.run("-c", RELABELLED).stdout.splitlines() == [
        "ai_images_generatedimage",
        "403 This account may not generate images: it lacks the permission ai_images.add_generatedimage. "
        "An administrator can grant it.",
        "200",
        "200 Make again",
        "302 0",
    ]


#: Users with the permissions under the new label, and the pages that Django looks for under a label.
RELABELLED = """
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "host.settings"
django.setup()
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from images.models import GeneratedImage
GeneratedImage.objects.all().delete()
print(GeneratedImage._meta.db_table)
user = User.objects.create_user("bob", is_staff=True)
client = Client(SERVER_NAME="localhost")
client.force_login(user)
body = {"contentItemId": "42", "title": "A quiet harbour"}
answer = client.post("/api/images/generate", body, "application/json")
print(answer.status_code, answer.json()["error"])
user.user_permissions.set(Permission.objects.filter(content_type__app_label="ai_images"))
answer = client.post("/api/images/generate", body, "application/json")
print(answer.status_code)
image = answer.json()["id"]
page = client.get(reverse("admin:ai_images_generatedimage_change", args=[image]))
print(page.status_code, "Make again" if "Make again" in page.text else "")
assert "images-views" in client.get(reverse("admin:ai_images_generatedimage_changelist")).text
gone = client.post(reverse("admin:ai_images_generatedimage_delete", args=[image]), {"post": "yes"})
print(gone.status_code, GeneratedImage.objects.count())
"""


def relabelled() -> str:
    """README's class for another label."""
    section = re.search(r"^## Plugging.*?(?=^## )", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert section
    [code] = re.findall(r"^```python\n([^`]*label = [^`]*)^```", section[0], re.MULTILINE)
    return str(code)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_a_project_that_differs_in_one_thing(name: str, tmp_path: Path) -> None:
    check_visit(ALONE[name], tmp_path / "site")


@pytest.mark.parametrize("lines", ["", pytest.param(SECOND_DATABASE, marks=pytest.mark.slow)])
def test_the_hosts_own_test_cases_make_images(lines: str, tmp_path: Path) -> None:
    host = make_host(tmp_path / "site", settings=lines)
    done = host.run("manage.py", "test", "newsroom")
    assert "Ran 2 tests" in done.stderr


def test_an_apps_module_may_import_the_services(tmp_path: Path) -> None:
    host = make_host(tmp_path / "site")
    lines = [
        "from django.apps import AppConfig",
        "from images.services import generate_image",
        "",
        "class Newsroom(AppConfig):",
        "    name = 'newsroom'",
        "    generate = staticmethod(generate_image)",
    ]
    (host.folder / "newsroom" / "apps.py").write_text("\n".join(lines))
    host.run("manage.py", "migrate", "--verbosity", "0")
    lines = [
        "import os, django",
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'host.settings'",
        "django.setup()",
        "from django.apps import apps",
        "from images import services",
        "print(apps.get_app_config('newsroom').generate(content_item_id='1', title='A title').status)",
        "print(services.generate_image.__module__)",
    ]
    assert host.run("-c", "\n".join(lines)).stdout.split() == ["ready", "images.services.generation"]


def test_the_hosts_own_pytest_gets_the_fixture_and_spends_nothing(tmp_path: Path) -> None:
    host = make_host(
        tmp_path / "site", settings='IMAGES["PROVIDER"] = "openai"\nIMAGES["OPENAI_API_KEY"] = "sk-real"\n'
    )
    (host.folder / "conftest.py").write_text('pytest_plugins = ["images.testing"]\n')
    (host.folder / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = host.settings\n")
    lines = [
        "import pytest",
        "from images.exceptions import RealProviderError",
        "from images.services import generate_image",
        "",
        "def test_with_the_fixture(db, image_outbox):",
        "    generate_image(content_item_id='1', title='A title')",
        "    assert [request.title for request in image_outbox] == ['A title']",
        "",
        "def test_without_it(db):",
        "    with pytest.raises(RealProviderError):",
        "        generate_image(content_item_id='1', title='A title')",
    ]
    (host.folder / "test_illustrations.py").write_text("\n".join(lines))
    assert "2 passed" in host.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_illustrations.py").stdout


SPECTACULAR = """
INSTALLED_APPS += ["drf_spectacular"]
REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
"""
OWN_API = """
from django.urls import include
from newsroom.openapi import Pictures
urlpatterns += [path("", include("images.urls")), path("pictures/", Pictures.as_view())]
"""


@pytest.mark.parametrize("own_first", [True, False])
def test_the_hosts_schema_validates_without_warnings(tmp_path: Path, own_first: bool) -> None:
    urls = OWN_API if own_first else f"{OWN_API}urlpatterns.reverse()\n"
    host = make_host(tmp_path / "site", settings=SPECTACULAR, urls=urls)
    done = host.run("manage.py", "spectacular", "--validate", "--fail-on-warn", "--file", "schema.yml")
    assert "Warning" not in done.stderr
    schema = yaml.safe_load((host.folder / "schema.yml").read_text())
    assert {path for path in schema["paths"] if "images" in path} == {
        "/api/images/",
        "/api/images/generate",
        "/api/images/{image_id}",
    }
    assert sorted(schema["components"]["securitySchemes"]) == ["cookieAuth", "imagesToken", "tokenAuth"]
