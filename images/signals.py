"""Signals for other apps, sent after the database has committed. A receiver that fails is logged and does no harm."""

from django.dispatch import Signal

#: A new image is ready. Arguments: `image` (`GeneratedImage`).
image_generated = Signal()

#: A generation failed. Arguments: `image` (the failed row), `error` (`ImagesError`).
image_generation_failed = Signal()

#: An image and its file are gone. Arguments: `image` (the instance as it was).
image_deleted = Signal()

#: Something went wrong between the queue, its workers and the rows, or was put right. Arguments: `kind`
#: (`images.services.incidents.Incident`), `image_id` (a `UUID`; there may be no such row any more).
queue_incident = Signal()

#: 80 % of a budget are used up; sent once in its period. Arguments: `standing` (`images.services.budgets.Standing`:
#: whose budget and which setting, its limit, what is spent and reserved, and when the period ends).
budget_warning = Signal()
