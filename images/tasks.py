"""The place in which Celery's `autodiscover_tasks` looks for an app's tasks.

huey's and dramatiq's workers import every app's `tasks`, too: without Celery there is nothing to find, and no error.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("celery"):
    from .queues.celery import TASK, count_workers, enqueue, generate_task

    __all__ = ["TASK", "count_workers", "enqueue", "generate_task"]
