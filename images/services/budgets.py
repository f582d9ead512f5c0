"""Budgets: what may be spent in a day and in a month, by the whole installation and by each user.

An estimate is reserved in the transaction that writes a request's row, before anybody is paid. When the generation
ends, its real cost takes the place of the estimate. A request belongs to the day and the month in which it was made,
whenever it ends.

`BudgetPeriod` keeps the sums. Every change of a row that concerns them is one short transaction with conditional
UPDATEs, of the sums as well. So two requests never share what is left, in whatever processes they run, and no lock is
held while a provider works. The rows stay the truth: the sums are counted anew from them when the first process
starts to watch a budget, and by `reconcile`. Without any budget there is no query.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial, reduce
from operator import or_
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import OperationalError, transaction
from django.db.models import F, Q, QuerySet, Sum, Value
from django.utils import timezone

from ..conf import SETTINGS, conf
from ..exceptions import BudgetExhausted, ProviderNotConfigured
from ..logs import log_event
from ..models import COUNTS_OTHERWISE, BudgetPeriod, CostBasis, DeletedImage, GeneratedImage, Status
from ..pricing import cost_of, estimate_for, estimate_text_for
from ..providers import get_provider
from ..signals import budget_warning
from .database import rows, user_scope
from .scenes import MAX_TOKENS, get_scene_writer, scenes_are_on

logger = logging.getLogger("images")

#: Amounts are whole numbers of this part of a US dollar, the smallest that a row's cost has.
UNITS = 10**10
#: From this share of a budget on, the operator is warned.
WARN_AT = Decimal("0.8")
DAY, MONTH = "day", "month"
#: How long the sums of a period are kept after its beginning. Nothing else needs them: the rows stay.
_KEPT = {DAY: timedelta(days=3), MONTH: timedelta(days=70)}
KEYS = ("BUDGET_DAY", "BUDGET_MONTH", "USER_BUDGET_DAY", "USER_BUDGET_MONTH")
#: How many images make an average, and how old they may be.
AVERAGED, RECENT = 20, timedelta(days=30)
#: Tokens of a long article and of the instructions for its scene.
SCENE_TOKENS = 4000
#: The difference between two sums that counts as none, in `UNITS`: a ten-thousandth of a cent.
_INEXACT = 10**4
#: How often a row is read anew that others are changing at the same moment.
_TRIES = 5


# --- Which budgets there are ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit for one period.

    Attributes:
        setting: Its key in `IMAGES`.
        kind: `day` or `month`.
        limit: In US dollars.
        scope: Whose it is: "" for the installation, or a user's.
        owner_id: The user's primary key; `None` for the installation.
        starts_on: The period's first day.
    """

    setting: str
    kind: str
    limit: Decimal
    scope: str
    owner_id: Any
    starts_on: date

    @property
    def spelling(self) -> str:
        """The setting as an operator writes it."""
        return SETTINGS[self.setting].spelling

    @property
    def ends_on(self) -> date:
        """The first day of the next period."""
        if self.kind == DAY:
            return self.starts_on + timedelta(days=1)
        return (self.starts_on + timedelta(days=32)).replace(day=1)

    @property
    def starts_at(self) -> datetime:
        """The period's first moment."""
        return _midnight(self.starts_on)

    @property
    def ends_at(self) -> datetime:
        """The first moment of the next period."""
        return _midnight(self.ends_on)

    @property
    def where(self) -> Q:
        """The condition for its row."""
        return Q(scope=self.scope, kind=self.kind, starts_on=self.starts_on)

    @property
    def rows(self) -> Q:
        """The condition for the images that count."""
        inside = Q(created_at__gte=self.starts_at, created_at__lt=self.ends_at)
        return inside & Q(owner_id=self.owner_id) if self.scope else inside


def budgets_of(owner_id: Any, moment: datetime) -> list[Budget]:
    """The budgets that count for a request, in the order in which they are locked.

    Args:
        owner_id: The user's primary key; `None` for a request without one.
        moment: When it was made.
    """
    found = []
    for key in KEYS:
        of_user, kind = key.startswith("USER_"), DAY if key.endswith("DAY") else MONTH
        limit = SETTINGS[key].value(conf)
        if limit is None or (of_user and owner_id is None):
            continue
        today = _local_date(moment)
        budget = Budget(
            setting=key,
            kind=kind,
            limit=limit,
            scope=user_scope(owner_id) if of_user else "",
            owner_id=owner_id if of_user else None,
            starts_on=today if kind == DAY else today.replace(day=1),
        )
        found.append(budget)
    return found


def is_over(owner_id: Any, moment: datetime) -> bool:
    """Whether a budget's period in which a request was made has ended: what it costs now would count for the past."""
    now = timezone.now()
    return any(budget.ends_at <= now for budget in budgets_of(owner_id, moment))


def are_set() -> bool:
    """Whether there is any budget."""
    return any(SETTINGS[key].value(conf) is not None for key in KEYS)


def units(usd: Decimal | None) -> int:
    """US dollars as the database keeps them here; 0 for an unknown amount."""
    return int((usd or Decimal(0)) * UNITS)


def _local_date(moment: datetime) -> date:
    """The day in `TIME_ZONE`, whatever time zone a middleware of the host's has activated."""
    return timezone.localtime(moment, timezone.get_default_timezone()).date() if settings.USE_TZ else moment.date()


def _midnight(day: date) -> datetime:
    midnight = datetime.combine(day, time.min)
    return timezone.make_aware(midnight, timezone.get_default_timezone()) if settings.USE_TZ else midnight


# --- What is left ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How much of a budget is used.

    Attributes:
        budget: Whose, for which period, and how much.
        spent: US dollars of generations that have ended. What is unknown counts as it was estimated.
        reserved: US dollars of those under way, as estimated.
    """

    budget: Budget
    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)

    @property
    def used(self) -> Decimal:
        """Spent and reserved together."""
        return self.spent + self.reserved

    @property
    def is_low(self) -> bool:
        """Whether so much is used that the operator is warned."""
        return self.used >= self.budget.limit * WARN_AT

    @property
    def is_exhausted(self) -> bool:
        """Whether all of it is used."""
        return self.used >= self.budget.limit

    def public_sentence(self) -> str:
        """Whether it is used up, without amounts."""
        state = "used up" if self.is_exhausted else "nearly used up"
        budget = self.budget
        return f"The budget of this {budget.kind} ({budget.spelling}), which ends on {_told(budget)}, is {state}."

    def sentence(self) -> str:
        """How much is used, for the operator."""
        reserved = f" and {dollars(self.reserved)} reserved" if self.reserved else ""
        return (
            f"{self.budget.spelling}: {dollars(self.spent)} of {dollars(self.budget.limit)} are spent{reserved}, in "
            f"the {self.budget.kind} that ends on {_told(self.budget)}."
        )


def dollars(usd: Decimal) -> str:
    """An amount for people: `$7.50`, with more digits only where the cents would say nothing."""
    return f"${usd:.2f}" if usd >= 1 or usd == round(usd, 2) else f"${usd:.4f}"


def standings(read: Callable[[QuerySet[Any, Any]], Iterable[Any]] = list) -> list[Standing]:
    """How much of the installation's budgets is used in the periods that are running.

    Args:
        read: Runs the query, if the caller has a way of its own.

    Raises:
        django.db.DatabaseError: The database does not answer.
    """
    budgets = budgets_of(None, timezone.now())
    if not budgets:
        return []
    sums = _periods_of(budgets).values_list("kind", "spent", "reserved")
    found = {kind: BudgetPeriod(spent=spent, reserved=reserved) for kind, spent, reserved in read(sums)}
    return [standing_of(budget, found.get(budget.kind)) for budget in budgets]


def standing_of(budget: Budget, period: BudgetPeriod | None) -> Standing:
    """How much is used, by the budget's row; nothing if there is none so far."""
    if period is None:
        return Standing(budget=budget)
    return Standing(budget=budget, spent=Decimal(period.spent) / UNITS, reserved=Decimal(period.reserved) / UNITS)


def periods() -> QuerySet[BudgetPeriod]:
    """Every period's row, read from the database that rows are written to."""
    return BudgetPeriod.objects.using(rows().db)


def _periods_of(budgets: Sequence[Budget]) -> QuerySet[BudgetPeriod]:
    return periods().filter(reduce(or_, (budget.where for budget in budgets)))


def _with_periods(budgets: list[Budget]) -> list[tuple[Budget, BudgetPeriod | None]]:
    """Each budget with its row, read with one query."""
    if not budgets:
        return []
    found = {(period.scope, period.kind): period for period in _periods_of(budgets)}
    return [(budget, found.get((budget.scope, budget.kind))) for budget in budgets]


# --- What a request may cost ----------------------------------------------------------------------------------------


def estimate() -> Decimal:
    """The most that a request may cost in US dollars, as far as can be told before: every call that may be billed.

    Raises:
        ProviderNotConfigured: There is no price.
    """
    pictures = [_picture_estimate(alias) for alias in conf.providers]
    # Otherwise no other provider is asked after one that may have billed.
    most = sum(pictures, Decimal(0)) if conf.failover_after_billing else max(pictures)
    return most + _scene_estimate()


def gaps() -> Iterator[str]:
    """A sentence for each thing whose cost follows from no price, with a budget. It does not use the database."""
    looks: list[Callable[[], Decimal]]
    looks = [partial(_picture_estimate, alias, by_price=True) for alias in conf.providers]
    for look in [*looks, _scene_estimate] if are_set() else []:
        try:
            look()
        except ProviderNotConfigured as err:
            yield err.message


def _picture_estimate(alias: str, *, by_price: bool = False) -> Decimal:
    try:
        provider = get_provider(alias)
        name, bills = provider.model, provider.bills
    except Exception:  # noqa: BLE001
        return Decimal(0)  # it cannot be asked, and the generation will say why
    if not bills:
        return Decimal(0)
    found = None if by_price else _recent_average(alias, name)
    found = estimate_for(alias, name) if found is None else found
    if found is None:
        raise ProviderNotConfigured(unestimated(f"an image of {alias}", name or alias))
    return found


def _recent_average(alias: str, model: str) -> Decimal | None:
    """What the latest images of a model cost on average, with everything that was paid for them."""
    since = timezone.now() - RECENT
    found = rows().filter(provider=alias, model=model, status=Status.READY, created_at__gte=since)
    found = found.filter(cost__isnull=False).exclude(cost_basis=CostBasis.AT_LEAST).order_by("-created_at")
    costs = [cost for cost in found.values_list("cost", flat=True)[:AVERAGED] if cost is not None]
    return sum(costs, Decimal(0)) / len(costs) if costs else None


def _scene_estimate() -> Decimal:
    if not scenes_are_on():
        return Decimal(0)
    try:
        writer = get_scene_writer()
        names = [str(getattr(writer, name, "") or "") for name in ("provider", "model")]
        bills = bool(getattr(writer, "bills", True))
    except Exception:  # noqa: BLE001
        return Decimal(0)  # there will be no scene
    found = estimate_text_for(*names, tokens_in=SCENE_TOKENS, tokens_out=MAX_TOKENS) if bills else Decimal(0)
    if found is None:
        raise ProviderNotConfigured(unestimated(f"a scene of {names[0]}", names[1] or names[0]))
    return found


def unestimated(what: str, name: str) -> str:
    """What is missing for an estimate, and what to set."""
    setting = next(SETTINGS[key].spelling for key in KEYS if SETTINGS[key].value(conf) is not None)
    return (
        f"A budget is set ({setting}), but what {what} will cost cannot be estimated. Nothing was paid for. The "
        f"operator should set IMAGE_PRICES={name}=<US dollars for a picture>, or prices for tokens."
    )


# --- Reserving ------------------------------------------------------------------------------------------------------


def prepare(image: GeneratedImage) -> None:
    """Say what is to be reserved for a request, and look, without a lock, whether it can be afforded.

    Args:
        image: The row that is going to be written.

    Raises:
        BudgetExhausted: A budget does not cover it.
        ProviderNotConfigured: What it will cost cannot be estimated.
    """
    global _watching_since
    _watching_since = (_watching_since or timezone.now()) if are_set() else None
    budgets = budgets_of(image.owner_id, image.created_at)
    image.budget_reserved = (units(estimate()) or None) if budgets else None
    if image.budget_reserved is None:
        return
    known = _with_periods(budgets)
    if uncounted := [budget for budget, period in known if not _is_counted(period)]:
        for budget in uncounted:
            recount(budget, unless_since=_watching_since)
        known = _with_periods(budgets)
    if lacking := _lacking(image, known):
        if not transaction.get_connection(rows().db).in_atomic_block:  # which is going to be rolled back
            for standing in lacking:
                _warn(standing)
        raise _exhausted(image, lacking)


#: Since when this process has been counting what every generation costs; `None` while there is no budget. Sums that
#: were added up before may lack what was spent while there was none.
_watching_since: datetime | None = None


def _is_counted(period: BudgetPeriod | None) -> bool:
    counted_at = period and period.counted_at
    return bool(counted_at and _watching_since and counted_at >= _watching_since)


def reserve(image: GeneratedImage) -> None:
    """Reserve what `prepare` has found, inside the transaction that writes the row.

    Raises:
        BudgetExhausted: A budget no longer covers it. The transaction has to be rolled back.
    """
    amount = image.budget_reserved
    if not amount:
        return
    budgets = budgets_of(image.owner_id, image.created_at)
    for budget in budgets:
        # Not an annotation: Django would make a subquery of it, which does not see what others have just changed.
        left = Value(units(budget.limit) - amount) - F("reserved")
        affordable = periods().filter(budget.where, spent__lte=left)
        if not affordable.update(reserved=F("reserved") + amount):
            raise _exhausted(image, _lacking(image, _with_periods(budgets)) or [Standing(budget=budget)])
    _warn_after_commit(image.owner_id, image.created_at)


def cover_again(row: GeneratedImage) -> bool:
    """Reserve once more for a row that is to be made again, since nobody knows whether its lost run was billed.

    Returns:
        Whether the budgets cover that, and the row is still as it was read.
    """
    if row.budget_reserved is None or not are_set():
        return True
    again = GeneratedImage(owner_id=row.owner_id, created_at=row.created_at, content_item_id=row.content_item_id)
    found = rows().filter(pk=row.pk, status=Status.PENDING, started_at=row.started_at)
    try:
        prepare(again)
        with transaction.atomic(using=found.db):
            reserve(again)
            covered = bool(found.update(budget_reserved=F("budget_reserved") + (again.budget_reserved or 0)))
            if not covered:
                transaction.set_rollback(True, using=found.db)
    except (BudgetExhausted, ProviderNotConfigured):
        return False
    return covered


def _lacking(image: GeneratedImage, known: Sequence[tuple[Budget, BudgetPeriod | None]]) -> list[Standing]:
    """The budgets that do not cover a request."""
    amount = Decimal(image.budget_reserved or 0) / UNITS
    found = [standing_of(budget, period) for budget, period in known]
    return [standing for standing in found if standing.used + amount > standing.budget.limit]


def _exhausted(image: GeneratedImage, lacking: Sequence[Standing]) -> BudgetExhausted:
    """The refusal of a request, by the budget that lasts longest."""
    budget = max((standing.budget for standing in lacking), key=lambda budget: budget.ends_at)
    names = {"setting": budget.spelling, "user": budget.owner_id, "content_item": image.content_item_id}
    log_event(logger, logging.WARNING, "budget_exhausted", **names)
    seconds = (budget.ends_at - timezone.now()).total_seconds()
    return BudgetExhausted(exhausted_sentence(budget), retry_after=max(1.0, seconds))


def exhausted_sentence(budget: Budget) -> str:
    """Whose budget is used up, which setting it is, and until when. It tells callers no amount."""
    whose = "This user's" if budget.scope else "This installation's"
    when = "today" if budget.kind == DAY else "this month"
    return (
        f"{whose} budget for {when} ({budget.spelling}) does not cover another image. Nothing was paid for. Try "
        f"again after {_told(budget)}, or ask the operator to raise it."
    )


def _told(budget: Budget) -> str:
    return f"{budget.ends_at:%Y-%m-%d %H:%M} {settings.TIME_ZONE}"


# --- Settling -------------------------------------------------------------------------------------------------------


def record(found: QuerySet[Any], **values: Any) -> bool:
    """Write the end of a generation, or its cost, and settle with the budgets. Without a budget it only writes.

    Args:
        found: A query for the one row, an image's or a deleted image's, on the condition that it may be changed.
        values: Columns.

    Returns:
        Whether the row was found.

    Raises:
        django.db.DatabaseError: Nothing was written.
    """
    if not are_set():
        return bool(found.update(**values))
    own = {column.attname for column in found.model._meta.concrete_fields}
    for _ in range(_TRIES):
        before = found.values(*(name for name in _COUNTED if name in own)).first()
        if before is None:
            return False
        after = {**before, **values}
        total = _total(after, _held(before))
        settled = {"budget_extra": max(0, total - units(after["cost"])) or None, "budget_reserved": None}
        settled = {name: value for name, value in settled.items() if name in own}
        unchanged = {name: before[name] for name in (*settled, "cost")}
        with transaction.atomic(using=found.db):
            if found.filter(**unchanged).update(**values, **settled):
                _shift(before, spent=total - _spent(before), reserved=-(before.get("budget_reserved") or 0))
                return True
    raise OperationalError("The image's row keeps being changed by others.")


#: What a row's share of the sums follows from, and whose they are.
_COUNTED = (
    "budget_reserved", "budget_extra", "cost", "cost_basis", "started_at", "attempts", "owner_id", "created_at",
)  # fmt: skip


def settle_deleted(image: GeneratedImage) -> None:
    """Settle what is reserved for a row that is about to be deleted, in the transaction that deletes it.

    Args:
        image: The row, which is updated in place. Its generation may still be under way.
    """
    if image.budget_reserved is None or not are_set():
        return
    found = rows().filter(pk=image.pk)
    record(found)
    for name, value in (found.values("budget_reserved", "budget_extra", "cost", "cost_basis").first() or {}).items():
        setattr(image, name, value)


def release(image: GeneratedImage) -> None:
    """Give back what a row counts for that nothing was paid for, in the transaction that deletes it."""
    if are_set():
        row = {name: getattr(image, name) for name in _COUNTED}
        _shift(row, spent=-_spent(row), reserved=-(image.budget_reserved or 0))


def _spent(row: Mapping[str, Any]) -> int:
    return units(row["cost"]) + (row["budget_extra"] or 0)


def _held(row: Mapping[str, Any]) -> int:
    """What counts for a row so far: the estimate, or what it was settled with."""
    reserved = row.get("budget_reserved")
    return _spent(row) if reserved is None else int(reserved)


def _total(row: Mapping[str, Any], held: int) -> int:
    """What counts for a row that has ended: its cost, and if a part of that is unknown at least the estimate."""
    cost, basis = row["cost"], row["cost_basis"]
    if cost is None and row.get("started_at", "") is None:  # no worker has started it, or it waited for a provider
        known = cost_of(row["attempts"])
        cost, basis = known.usd, known.basis
    if cost is not None and basis != CostBasis.AT_LEAST:
        return units(cost)
    return max(units(cost), held)


def _shift(row: Mapping[str, Any], *, spent: int, reserved: int) -> None:
    """Change the sums of a row's budgets."""
    if not spent and not reserved:
        return
    for budget in budgets_of(row["owner_id"], row["created_at"]):
        periods().filter(budget.where).update(spent=F("spent") + spent, reserved=F("reserved") + reserved)
    if spent + reserved > 0:
        _warn_after_commit(row["owner_id"], row["created_at"])


# --- Warning --------------------------------------------------------------------------------------------------------


def _warn_after_commit(owner_id: Any, moment: datetime) -> None:
    transaction.on_commit(lambda: _warn_if_low(budgets_of(owner_id, moment)), using=rows().db, robust=True)


def _warn_if_low(budgets: list[Budget]) -> None:
    for budget, period in _with_periods(budgets):
        if period is not None and period.warned_at is None and standing_of(budget, period).is_low:
            _warn(standing_of(budget, period))


def _warn(standing: Standing) -> None:
    """Tell the operator that a budget is nearly used up, once in its period, whichever process sees it first."""
    budget = standing.budget
    if not periods().filter(budget.where, warned_at=None).update(warned_at=timezone.now()):
        return
    amounts = {"limit": budget.limit, "spent": standing.spent, "reserved": standing.reserved}
    log_event(logger, logging.WARNING, "budget_warning", setting=budget.spelling, user=budget.owner_id, **amounts)
    budget_warning.send_robust(GeneratedImage, standing=standing)


# --- Counting the rows ----------------------------------------------------------------------------------------------


def recount(budget: Budget, *, unless_since: datetime | None = None) -> bool:
    """Add up the rows of a budget's period anew, also to begin it. Nobody else changes its sums meanwhile.

    Args:
        budget: For a period.
        unless_since: Do nothing if they were added up after this moment.

    Returns:
        Whether the sums were not those of the rows.
    """
    new = BudgetPeriod(scope=budget.scope, kind=budget.kind, starts_on=budget.starts_on)
    if periods().bulk_create([new], ignore_conflicts=True):
        old = budget.starts_on - _KEPT[budget.kind]
        periods().filter(scope=budget.scope, kind=budget.kind, starts_on__lt=old).delete()
    found = periods().filter(budget.where)
    wanted = Q(counted_at=None) | Q(counted_at__lt=unless_since) if unless_since else Q()
    with transaction.atomic(using=found.db):
        if not found.filter(wanted).update(counted_at=timezone.now()):  # from here on, settling waits for this
            return False
        period, (spent, reserved) = found.get(), _sums(budget)
        if _agree(period, spent, reserved):
            return False
        found.update(spent=spent, reserved=reserved)
    return True


def _sums(budget: Budget) -> tuple[int, int]:
    """What the rows say was spent and is reserved."""
    spent = reserved = 0
    for model in (GeneratedImage, DeletedImage):
        images = model._default_manager.using(rows().db).filter(budget.rows).order_by()
        spent += units(images.aggregate(sum=Sum("cost"))["sum"])
        if model is GeneratedImage:
            images = images.filter(COUNTS_OTHERWISE)
            reserved = images.aggregate(sum=Sum("budget_reserved"))["sum"] or 0
        spent += images.aggregate(sum=Sum("budget_extra"))["sum"] or 0
    return spent, reserved


def _agree(period: BudgetPeriod, spent: int, reserved: int) -> bool:
    """Whether the sums are the same, but for what SQLite adds up inexactly."""
    return abs(period.spent - spent) <= _INEXACT and period.reserved == reserved


def drifted() -> Iterator[Budget]:
    """The budgets whose running period does not say what the rows say. There should be none.

    Raises:
        django.db.DatabaseError: The database does not answer.
    """
    if not are_set():
        return
    today = _local_date(timezone.now())
    for period in periods().filter(starts_on__gte=today.replace(day=1)).exclude(counted_at=None).iterator():
        budget = next((each for each in _budgets_in(period.scope) if each.where == _key(period)), None)
        # Generations go on meanwhile: it counts only if nothing has changed.
        if budget and not _agree(period, *_sums(budget)) and periods().filter(**_sums_of(period)).exists():
            yield budget


def _budgets_in(scope: str) -> list[Budget]:
    """The running budgets of a scope; none if it does not tell the user's primary key."""
    if not scope:
        return budgets_of(None, timezone.now())
    with suppress(ValidationError, ValueError):
        owner_id = get_user_model()._meta.pk.to_python(scope.partition(":")[2])
        return [budget for budget in budgets_of(owner_id, timezone.now()) if budget.scope == scope]
    return []


def _key(period: BudgetPeriod) -> Q:
    return Q(scope=period.scope, kind=period.kind, starts_on=period.starts_on)


def _sums_of(period: BudgetPeriod) -> dict[str, Any]:
    return {name: getattr(period, name) for name in ("pk", "spent", "reserved")}


def unsettled() -> QuerySet[GeneratedImage]:
    """Rows that have ended and still hold a reservation: their process did not know of the budget, say."""
    return rows().filter(COUNTS_OTHERWISE, budget_reserved__isnull=False).exclude(status=Status.PENDING)


def settle(image: GeneratedImage) -> bool:
    """Settle one of `unsettled`. Returns whether it was still there."""
    return record(rows().filter(pk=image.pk).exclude(status=Status.PENDING))
