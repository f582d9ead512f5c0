"""An index for the queue: the next request is found without reading all that wait."""

from django.db import migrations, models

import images.models


class Migration(migrations.Migration):

    dependencies = [
        # A host may give the app another label.
        (images.models.GeneratedImage._meta.app_label, '0009_budgets'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='generatedimage',
            index=models.Index(fields=['status', '-caller_waits', 'created_at'], name='images_by_turn'),
        ),
    ]
