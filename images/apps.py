from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ImagesConfig(AppConfig):
    """The app. It writes no setting, configures no logging and installs no handler of the host's."""

    name = "images"
    label = "images"
    verbose_name = _("Images")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (registers the system checks)
        from .conf import conf
        from .services import deletion

        deletion.connect()
        if conf.metrics:
            from . import metrics  # only then: it needs a package that most do without

            metrics.connect()
