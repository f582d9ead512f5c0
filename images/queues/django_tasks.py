"""The queue for Django's tasks framework: `IMAGES["QUEUE"] = "tasks"`, with the backend of `TASKS`.

The framework is `django.tasks` from Django 6.0 on; before that, it is the package django-tasks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from ..services.generation import run_generation

try:
    from django.tasks import task
except ImportError:
    try:
        from django_tasks import task  # type: ignore[no-redef]
    except ImportError as err:
        raise ImportError("Django's tasks need Django 6.0, or the package django-tasks") from err


@task(takes_context=True)
def generate_task(context: Any, image_id: str, began: bool = False) -> None:
    """Generate the image of a row, if this is the attempt that may.

    Args:
        context: The framework's; it counts attempts.
        image_id: The row.
        began: A worker had begun before.
    """
    can_defer = generate_task.get_backend().supports_defer
    pause = run_generation(image_id, redelivered=began or context.attempt > 1, deferrable=can_defer)
    # Without such a backend the row counts as failed once its deadline has passed.
    if pause is not None and can_defer:
        run_after = timezone.now() + timedelta(seconds=pause)
        generate_task.using(run_after=run_after).enqueue(image_id, began=True)


def enqueue(image_id: str) -> None:
    """Put an image into the queue.

    Args:
        image_id: The row's primary key.

    Raises:
        Exception: The backend's own, if it does not accept the task.
    """
    generate_task.enqueue(image_id)
