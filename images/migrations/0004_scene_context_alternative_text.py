"""What a text model writes before the picture, and the words for those who cannot see it."""

from django.db import migrations, models

import images.models


class Migration(migrations.Migration):

    dependencies = [
        # A host may give the app another label.
        (images.models.GeneratedImage._meta.app_label, '0003_cost'),
    ]

    operations = [
        migrations.AddField(
            model_name='generatedimage',
            name='alt_text',
            field=models.CharField(blank=True, max_length=250, null=True, verbose_name='alternative text'),
        ),
        migrations.AddField(
            model_name='generatedimage',
            name='context',
            field=models.TextField(blank=True, db_default='', default='', verbose_name='context'),
        ),
        migrations.AddField(
            model_name='generatedimage',
            name='scene',
            field=models.TextField(blank=True, db_default='', default='', verbose_name='scene'),
        ),
        migrations.AddField(
            model_name='generatedimage',
            name='scene_model',
            field=models.CharField(blank=True, db_default='', default='', max_length=128, verbose_name='text model'),
        ),
    ]
