"""When a request that waits in the queue may be put there once more."""

from django.db import migrations, models

import images.models


class Migration(migrations.Migration):

    dependencies = [
        # A host may give the app another label.
        (images.models.GeneratedImage._meta.app_label, '0005_variants_and_provenance'),
    ]

    operations = [
        migrations.AddField(
            model_name='generatedimage',
            name='republish_at',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
    ]
