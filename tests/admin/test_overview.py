"""The last day at a glance, on the admin's index."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from images.models import BudgetPeriod, CostBasis, GeneratedImage, Status

pytestmark = pytest.mark.django_db


def row(status: Status, *, hours: int = 1, **fields: object) -> GeneratedImage:
    moment = timezone.now() - timedelta(hours=hours)
    return GeneratedImage.objects.create(
        content_item_id="a", title="b", file_stem=f"draft-images/a/{timezone.now().timestamp()}", status=status,
        created_at=moment, started_at=moment, **fields,
    )  # fmt: skip


@pytest.mark.parametrize("page", ["/admin/", "/admin/images/"])
def test_it_says_what_was_made_what_failed_and_what_it_cost(admin_client: Client, page: str) -> None:
    row(Status.READY, cost=Decimal("0.0412"), cost_basis=CostBasis.ESTIMATED)
    row(Status.READY, hours=30, cost=Decimal(7), cost_basis=CostBasis.ESTIMATED)
    row(Status.FAILED, error_code="provider_timeout")  # what it cost is unknown
    text = admin_client.get(page).content.decode()
    panel = text[text.index("images-overview-title") : text.index("</section>")]
    assert "<dt>Made</dt><dd>1</dd>" in panel
    assert 'error_code=provider_timeout">no answer in time</a> (1)' in panel
    assert "at least $0.04" in panel
    assert "Free disk space" in panel


def test_it_says_what_is_left_of_a_budget(admin_client: Client, settings: Any) -> None:
    settings.IMAGES = {**settings.IMAGES, "BUDGET_DAY": "5"}
    assert "Budget of the day</dt><dd>$0.00 of $5.00</dd>" in admin_client.get("/admin/").content.decode()
    starts_on = timezone.now().date()
    BudgetPeriod.objects.create(kind="day", starts_on=starts_on, spent=41 * 10**9, reserved=10**9)
    assert (
        '<div class="images-error"><dt>Budget of the day</dt><dd>$4.10 of $5.00, and $0.10 reserved '
        in admin_client.get("/admin/").content.decode()
    )


def test_it_is_not_shown_to_those_who_may_not_see_images(client: Client) -> None:
    editor = User.objects.create_user("editor", is_staff=True)
    editor.user_permissions.add(Permission.objects.get(codename="view_group"))
    client.force_login(editor)
    assert "images-overview" not in client.get("/admin/").content.decode()
