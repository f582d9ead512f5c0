"""`GeneratedImage`: one row a request, written before the provider is called."""

from __future__ import annotations

import secrets
import uuid
import warnings
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Self

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import Storage, storages
from django.db import models, router
from django.db.models.deletion import Collector
from django.db.models.fields.files import FieldFile
from django.http import HttpRequest
from django.urls import NoReverseMatch, get_script_prefix, reverse
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from .conf import conf
from .exceptions import ImagesError, ProviderFailure, QueueUnavailable, find_kind
from .fields import IdentityField, IdentityFileField
from .pricing import AT_LEAST, ESTIMATED, REPORTED
from .provenance import ALGORITHMIC_MEDIA, TRAINED_ALGORITHMIC_MEDIA, VOCABULARY, is_ai_generated, source_uri
from .variants import MAX_NAME, own_variants

#: The errors of requests whose process ended without recording one.
STOPPED = (
    "The server was stopped while it was generating this image, and a provider may have charged for it. "
    "Request it again."
)
NO_WORKER_STARTED = "No worker started the request in time. Try again later."


def __getattr__(name: str) -> str:
    if name == "NOT_TAKEN_UP":
        warnings.warn("images.models.NOT_TAKEN_UP is now NO_WORKER_STARTED.", DeprecationWarning, stacklevel=2)
        return NO_WORKER_STARTED
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


#: Characters of an alternative text; screen readers read all of it out.
MAX_ALT_TEXT = 250
#: The most variants beyond the configured ones that filters offer.
MAX_OTHER_VARIANTS = 100

#: How long after its deadline a `pending` row counts as failed: its process was stopped before it could record that.
STALE_AFTER = timedelta(seconds=30)

#: Characters of a title by which an image is called in a line of text.
MAX_CALLED = 100


def image_storage() -> Storage:
    """The storage of image files: `IMAGES["STORAGE"]` names an alias of Django's `STORAGES`."""
    return storages[conf.storage]


def absolute_url(path: str, request: HttpRequest | None = None) -> str:
    """The public URL of `path`.

    Args:
        path: A path on this server, with a leading slash, as `reverse` returns it. An address is returned unchanged.
        request: Supplies scheme and host if `PUBLIC_URL` is not set.

    Returns:
        An absolute URL, or `path` itself if neither `PUBLIC_URL` nor a request is known.
    """
    if "://" in path:
        return path
    base = conf.public_url
    if not base:
        return request.build_absolute_uri(path) if request else path
    scheme, _, rest = base.partition("://")
    host, _, prefix = rest.partition("/")
    if prefix and get_script_prefix() == f"/{prefix}/":  # `reverse` has put FORCE_SCRIPT_NAME there already
        return f"{scheme}://{host}{path}"
    return base + path


def media_path(name: str) -> str:
    """The path under which the app serves the file `name`; without the app's URLs the storage's address, or ""."""
    try:
        return reverse("images:media", kwargs={"path": name.partition("/")[2]})
    except NoReverseMatch:
        pass
    try:
        url = str(image_storage().url(name))
    except (NotImplementedError, ValueError):
        return ""
    return url if url.startswith(("/", "http://", "https://")) else ""


class ImageFieldFile(FieldFile):
    """The file of an image. Its `url` is the app's: a storage knows only `MEDIA_URL`."""

    @property
    def url(self) -> str:
        """The file's address as `GeneratedImage.public_url()` gives it.

        Raises:
            ValueError: There is no file, or nothing serves it.
        """
        path = media_path(self.name) if self.name else ""
        if not path:
            raise ValueError("This image has no file, or nothing serves it.")
        return absolute_url(path)


class ImageFileField(IdentityFileField):
    """A file field whose files have the app's addresses; for migrations it is its parent."""

    attr_class = ImageFieldFile

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, _path, args, kwargs = super().deconstruct()
        return name, "images.fields.IdentityFileField", args, kwargs


def upload_to(instance: GeneratedImage, filename: str) -> str:
    """The name of an image's file: the row's `file_stem` with the extension of `filename`."""
    return f"{instance.file_stem}.{filename.rpartition('.')[2]}"


def set_null_where_images_live(
    collector: Collector, field: models.Field[Any, Any], sub_objs: models.QuerySet[Any], using: str
) -> None:
    """`SET_NULL` for hosts whose router keeps images and users in different databases.

    Django looks for rows that refer to a deleted user in the user's own database, where those hosts have no such
    table.
    """
    images = sub_objs.using(router.db_for_write(GeneratedImage))
    models.SET_NULL(collector, field, images, using)


# With this, Django passes the rows as a queryset that has not been evaluated.
set_null_where_images_live.lazy_sub_objs = True  # type: ignore[attr-defined]


def new_seed() -> int:
    """A seed that fits every database's signed integer and every provider's."""
    return secrets.randbelow(2**31)


class Variant(models.TextChoices):
    """The built-in variants. `variant_choices` has those of the host as well."""

    HERO = "hero", _("hero (wide, 16:9)")
    INLINE = "inline", _("inline (closer, 4:3)")


def variant_choices() -> list[tuple[str, Any]]:
    """The variants that callers may use, with their labels. Migrations refer to this function, not to its result.

    If the setting cannot be used, these are the built-in ones: Django asks for choices before its checks can say so.
    """
    try:
        own = own_variants()
    except ImproperlyConfigured:
        own = {}
    return [*Variant.choices, *((name, f"{name} ({variant.ratio})") for name, variant in own.items())]


class Status(models.TextChoices):
    PENDING = "pending", _("pending")
    READY = "ready", _("ready")
    FAILED = "failed", _("failed")
    DELETING = "deleting", _("being deleted")


class CostBasis(models.TextChoices):
    """How a cost was found. An unknown cost has none."""

    REPORTED = REPORTED, _("reported by the server")
    ESTIMATED = ESTIMATED, _("estimated from tokens and prices")
    AT_LEAST = AT_LEAST, _("at least; a part is unknown")


#: What the usage page adds up. Indexes that hold these columns spare the database the rows themselves, which are
#: twenty times as large; it counts a million of them in the time of fifty thousand.
_COUNTED = ("status", "error_code", "cost", "cost_basis", "deadline_at", "duration_ms")


#: The few rows that count against a budget with something other than their cost.
COUNTS_OTHERWISE = models.Q(budget_reserved__isnull=False) | models.Q(budget_extra__isnull=False)


class GeneratedImageQuerySet(models.QuerySet["GeneratedImage"]):
    """The queries that the API, the admin and the commands share."""

    def in_status(self, status: str) -> Self:
        """Rows in `status` as a reader sees it: a `pending` row long past its deadline counts as `failed`."""
        stale = models.Q(status=Status.PENDING, deadline_at__lt=timezone.now() - STALE_AFTER)
        if status == Status.FAILED:
            # The first condition says nothing new, but databases find it in the index on the status.
            either = models.Q(status__in=(Status.FAILED, Status.PENDING))
            return self.filter(either, models.Q(status=Status.FAILED) | stale)
        if status == Status.PENDING:
            return self.filter(status=status).exclude(stale)
        return self.filter(status=status)

    def other_variants(self, known: Iterable[str]) -> list[str]:
        """The variants of rows that are none of `known`, for example because they have been taken away; at most 100.

        The gaps between the known names are looked up in the index, and the many rows of the known ones are not read.
        """
        names = sorted(known)
        found = self.order_by().values_list("variant", flat=True).distinct()
        between = [found.filter(variant__gt=after, variant__lt=before) for after, before in pairwise(["", *names])]
        # A union, since SQLite would answer one condition with OR by walking through the whole index. In Django 6.1 a
        # union has the model's ordering again, which no database accepts.
        return sorted(found.filter(variant__gt=names[-1]).union(*between).order_by())[:MAX_OTHER_VARIANTS]


class GeneratedImage(models.Model):
    """One request for an image, and the image once it exists. It is also the record of what was paid for.

    Attributes:
        replayed: True on an instance that `generate_image` returned for a repeated idempotency key.
    """

    replayed: bool = False
    #: Until when a claimed row may wait in the queue again, if no provider can be asked for now.
    queued_until: datetime | None = None

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("owner"),
        null=True,
        blank=True,
        on_delete=set_null_where_images_live,
        # No constraint, since no database can check rows in another one.
        db_constraint=False,
        related_name="generated_images",
    )
    content_item_id = IdentityField(_("content item"), max_length=255)
    title = models.CharField(_("title"), max_length=500)
    description = models.TextField(_("description"), blank=True)
    context = models.TextField(_("context"), blank=True, default="", db_default="")
    # Longer names would need a wider column, which an earlier release could not be rolled back to.
    variant = models.CharField(_("variant"), max_length=MAX_NAME, choices=variant_choices, default=Variant.HERO)
    status = models.CharField(_("status"), max_length=16, choices=Status.choices, default=Status.PENDING)

    file_stem = IdentityField(
        _("file name without extension"),
        max_length=400,
        unique=True,
        editable=False,
        help_text=_("Known before the provider is asked, so that a file can always be matched with its row."),
    )
    file = ImageFileField(
        _("file"), upload_to=upload_to, storage=image_storage, max_length=420, blank=True, db_index=True
    )
    mime_type = models.CharField(_("type"), max_length=32, blank=True)
    width = models.PositiveIntegerField(_("width"), null=True, blank=True)
    height = models.PositiveIntegerField(_("height"), null=True, blank=True)
    size_bytes = models.PositiveBigIntegerField(_("size in bytes"), null=True, blank=True)
    sha256 = models.CharField(_("SHA-256"), max_length=64, blank=True)
    # "" on rows of earlier releases, and if nobody knows where a file comes from: `digital_source_type` tells.
    source_type = models.CharField(_("source (IPTC)"), max_length=64, blank=True, default="", db_default="")
    # NULL as long as nobody has looked.
    content_credentials = models.BooleanField(_("Content Credentials (C2PA)"), null=True, blank=True)

    provider = models.CharField(_("provider"), max_length=64, blank=True)
    model = models.CharField(_("model"), max_length=128, blank=True)
    prompt = models.TextField(_("prompt"), blank=True)
    negative_prompt = models.TextField(_("negative prompt"), blank=True)
    style = models.CharField(_("style"), max_length=64, blank=True)
    seed = models.BigIntegerField(_("seed"), default=new_seed)
    scene = models.TextField(_("scene"), blank=True, default="", db_default="")
    # Set before the text model is asked, so that no later run of the same row asks again.
    scene_model = models.CharField(_("text model"), max_length=128, blank=True, default="", db_default="")
    # NULL: nobody has described the picture. "": a person has marked it as decorative.
    alt_text = models.CharField(_("alternative text"), max_length=MAX_ALT_TEXT, null=True, blank=True)  # noqa: DJ001
    usage = models.JSONField(_("usage as reported"), null=True, blank=True)
    attempts = models.JSONField(_("attempts"), default=list, blank=True)
    cost = models.DecimalField(
        _("cost in US dollars"),
        max_digits=18,
        decimal_places=10,
        null=True,
        blank=True,
        help_text=_("Of all attempts together. Empty if it is unknown."),
    )
    cost_basis = models.CharField(
        _("how the cost was found"), max_length=16, choices=CostBasis.choices, blank=True, default="", db_default=""
    )
    prices_dated = models.DateField(_("day of the prices"), null=True, blank=True)
    # In units of `services.budgets`. What is reserved for the generation until it ends; and what counts beyond its
    # cost then, since a part of that is unknown. NULL on nearly all rows.
    budget_reserved = models.BigIntegerField(null=True, blank=True, editable=False)
    budget_extra = models.BigIntegerField(null=True, blank=True, editable=False)
    duration_ms = models.PositiveIntegerField(_("duration in ms"), null=True, blank=True)
    error_code = models.CharField(_("error code"), max_length=64, blank=True)
    error_message = models.TextField(_("error"), blank=True)

    idempotency_scope = IdentityField(_("whose idempotency key"), max_length=80, blank=True, editable=False)
    # NULL, unlike "", lets any number of rows be without a key under the unique constraint.
    idempotency_key = IdentityField(_("idempotency key"), max_length=255, null=True, blank=True, editable=False)

    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    # Whether the caller waits for the image: then it is made before those of callers that come back later.
    caller_waits = models.BooleanField(_("caller waits"), default=False, db_default=False, editable=False)
    # When no provider could be asked, and nothing can have been billed: when the next attempt is due. Meanwhile
    # `error_code` and `error_message` say what the image waits for.
    retry_at = models.DateTimeField(_("next attempt"), null=True, blank=True, editable=False)
    # The request under whose id the queue delivered the run, if that is another one: a worker that is free begins
    # with the image whose turn it is.
    delivery = models.UUIDField(_("delivered as"), null=True, blank=True, editable=False)
    # Empty while the request waits in the queue; afterwards it identifies the run that has claimed the row.
    started_at = models.DateTimeField(_("started"), null=True, blank=True, editable=False)
    deadline_at = models.DateTimeField(_("deadline"), null=True, blank=True, editable=False)
    # While the request waits in the queue: when workers may put it there once more (`services.outbox`), if a moment
    # other than the default is meant.
    republish_at = models.DateTimeField(null=True, blank=True, editable=False)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True, editable=False)

    objects = GeneratedImageQuerySet.as_manager()

    class Meta:
        verbose_name = _("generated image")
        verbose_name_plural = _("generated images")
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["idempotency_scope", "idempotency_key"], name="images_idempotency_key"),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id", *_COUNTED], name="images_by_time"),
            models.Index(fields=["content_item_id", "-created_at", "-id", *_COUNTED], name="images_by_item"),
            models.Index(fields=["owner", "-created_at", "-id", "variant", *_COUNTED], name="images_by_owner"),
            models.Index(fields=["provider", "model", "-created_at", *_COUNTED], name="images_by_model"),
            models.Index(fields=["status", "-created_at", "-id", "deadline_at"], name="images_by_status"),
            models.Index(fields=["status", "-caller_waits", "created_at"], name="images_by_turn"),
            models.Index(fields=["variant", "-created_at"], name="images_variant_newest"),
            models.Index(fields=["created_at"], condition=COUNTS_OTHERWISE, name="images_budgeted"),
        ]

    @classmethod
    def check(cls, **kwargs: Any) -> list[CheckMessage]:
        """Without the warning that MariaDB has no index with a condition: it only makes counting quicker."""
        return [message for message in super().check(**kwargs) if message.id != "models.W037"]

    def __str__(self) -> str:
        """The title, as the admin calls the image; a row without one is called by its content item."""
        return Truncator(self.title.strip()).chars(MAX_CALLED) or f"{self.variant} {self.content_item_id}"

    @property
    def file_name(self) -> str:
        """The file's name in the storage, or "" while there is none."""
        return str(self.file.name or "")

    @property
    def is_stale(self) -> bool:
        """Whether the row is `pending` long past its deadline, because its process was stopped."""
        late = self.deadline_at is not None and timezone.now() > self.deadline_at + STALE_AFTER
        return self.status == Status.PENDING and late

    @property
    def current_status(self) -> str:
        """The status as a reader should see it: a stale `pending` counts as `failed`."""
        return Status.FAILED if self.is_stale else self.status

    @property
    def is_waiting(self) -> bool:
        """Whether the request waits until a provider can be asked again; `error_message` says why."""
        return self.current_status == Status.PENDING and self.started_at is None and self.error_code != ""

    @property
    def current_error(self) -> tuple[str, str]:
        """Code and sentence of the failure as a reader should see them; two empty strings if there is none."""
        if self.current_status != Status.FAILED:
            return "", ""
        stopped = (
            (QueueUnavailable.code, NO_WORKER_STARTED) if self.started_at is None else (ImagesError.code, STOPPED)
        )
        return self.error_code or stopped[0], self.error_message or stopped[1]

    @property
    def failure(self) -> ImagesError | None:
        """The exception in which the generation ended, made anew from what was recorded; `None` if it has not failed.

        It has the class, sentence, `retry_after` and `may_have_billed` of the one that was raised where the image
        was being made, in this process or on a worker.
        """
        code, message = self.current_error
        if not code:
            return None
        attempt, outcome = self._reported_attempt(code)
        error = find_kind(code, message, outcome.get("error", ""))(message)
        if isinstance(error, ProviderFailure):
            error.request_id, error.usage = attempt.get("request_id", ""), attempt.get("usage")
            error.retry_after = outcome.get("retry_after")
            if error.retry_after is None and self.retry_at and self.finished_at:  # it failed while it waited
                error.retry_after = (self.retry_at - self.finished_at).total_seconds()
        error.may_have_billed = self.may_have_billed
        return error

    def _reported_attempt(self, code: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The attempt whose failure the caller was told, and what was recorded of that."""
        for attempt in self.attempts:
            if isinstance(attempt, dict) and attempt.get("outcome") and attempt.get("code") == code:
                return attempt, attempt["outcome"]
        return {}, {}

    @property
    def may_have_billed(self) -> bool:
        """Whether a provider may have charged although the generation failed."""
        if self.current_status != Status.FAILED:
            return False
        if self.started_at is not None and self.duration_ms is None:  # stopped before it could record its attempts
            return True
        return any(isinstance(attempt, dict) and attempt.get("may_have_billed") for attempt in self.attempts)

    @property
    def is_ready(self) -> bool:
        """Whether there is a picture to show."""
        return self.status == Status.READY and bool(self.file)

    @property
    def digital_source_type(self) -> str:
        """The IPTC's address for where the picture comes from; "" while there is none, and if nobody knows.

        Rows of earlier releases tell it by their provider.
        """
        if not self.is_ready:
            return ""
        made_here = ALGORITHMIC_MEDIA if self.provider == "placeholder" else TRAINED_ALGORITHMIC_MEDIA
        return source_uri(self.source_type or (made_here if self.provider else ""))

    @property
    def ai_generated(self) -> bool | None:
        """Whether generative AI made the picture; `None` while there is no picture, and if nobody knows."""
        return is_ai_generated(self.digital_source_type.removeprefix(VOCABULARY))

    def get_absolute_url(self) -> str:
        """The picture's path on this server, or "" while there is none.

        If the project includes none of the app's URLs it is the storage's own address, or "" if that has none.
        """
        if not self.is_ready:
            return ""
        return media_path(self.file_name)

    def public_url(self, request: HttpRequest | None = None) -> str:
        """The picture's address: absolute if `PUBLIC_URL` is set or a request is given, otherwise a path.

        "" while there is no picture. It is computed on each call and never stored, so it stays right after a move to
        another host.
        """
        path = self.get_absolute_url()
        return absolute_url(path, request) if path else ""


class DeletedImage(models.Model):
    """What is left of a deleted image: what it cost and how its generation ended, but nothing of its content.

    It is written in the transaction that deletes the row, so that the sums of a past month do not change.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=set_null_where_images_live,
        db_constraint=False,
        related_name="+",
    )
    content_item_id = IdentityField(max_length=255)
    variant = models.CharField(max_length=16)
    #: How the generation ended: `ready` or `failed`.
    status = models.CharField(max_length=16)
    provider = models.CharField(max_length=64, blank=True)
    model = models.CharField(max_length=128, blank=True)
    cost = models.DecimalField(max_digits=18, decimal_places=10, null=True)
    cost_basis = models.CharField(max_length=16, blank=True, default="", db_default="")
    budget_extra = models.BigIntegerField(null=True)
    duration_ms = models.PositiveIntegerField(null=True)
    error_code = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField()
    deleted_at = models.DateTimeField(default=timezone.now)
    #: Whether the first call of `delete_image` did it. Otherwise one had failed before, or its process was killed.
    at_first_try = models.BooleanField(default=True, db_default=True)

    class Meta:
        default_permissions = ()
        indexes = [
            models.Index(
                fields=["created_at", "id", "status", "error_code", "cost", "cost_basis", "duration_ms"],
                name="images_deleted_by_time",
            ),
            models.Index(fields=["deleted_at", "at_first_try"], name="images_deletions"),
        ]

    def __str__(self) -> str:
        return f"{self.variant} {self.content_item_id} (deleted)"


class RateLimitSlot(models.Model):
    """One of the calls that a provider's limit (`IMAGES["RATE_LIMITS"]`) allows in its period.

    Attributes:
        used_at: When the latest call that took it began, in milliseconds since 1970.
    """

    id = models.BigAutoField(primary_key=True)  # whatever a host's DEFAULT_AUTO_FIELD is
    provider = IdentityField(max_length=64)
    number = models.PositiveIntegerField()
    used_at = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["provider", "number"], name="images_rate_limit_slot")]
        indexes = [models.Index(fields=["provider", "used_at"], name="images_rate_limit_oldest")]
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.provider} {self.number}"


class BudgetPeriod(models.Model):
    """A day or a month of a budget: what was spent in it, and what is reserved for generations under way.

    It repeats what the rows say, so that no row has to be added up before a picture is paid for. Amounts are whole
    numbers of the unit of `services.budgets`: SQLite would add up decimals inexactly.

    Attributes:
        scope: Whose budget it is: "" for the installation, or a user's.
        kind: `day` or `month`.
        starts_on: Its first day, in `TIME_ZONE`.
        counted_at: When the rows were last added up.
        warned_at: When the operator was told that most of it is used up.
    """

    id = models.BigAutoField(primary_key=True)  # whatever a host's DEFAULT_AUTO_FIELD is
    scope = IdentityField(max_length=80, blank=True)
    kind = models.CharField(max_length=8)
    starts_on = models.DateField()
    spent = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)
    counted_at = models.DateTimeField(null=True)
    warned_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["scope", "kind", "starts_on"], name="images_budget_period")]
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.kind} from {self.starts_on} {self.scope}".rstrip()
