"""Variants of a host's own (their choices stay out of migrations), and where each picture comes from."""

from django.db import migrations, models

import images.models


class Migration(migrations.Migration):

    dependencies = [
        # A host may give the app another label.
        (images.models.GeneratedImage._meta.app_label, '0004_scene_context_alternative_text'),
    ]

    operations = [
        migrations.AlterField(
            model_name='generatedimage',
            name='variant',
            field=models.CharField(choices=images.models.variant_choices, default='hero', max_length=16, verbose_name='variant'),
        ),
        # Before the columns: PostgreSQL answers queries while it builds an index, but not once a column was added.
        migrations.AddIndex(
            model_name='generatedimage',
            index=models.Index(fields=['variant', '-created_at'], name='images_variant_newest'),
        ),
        migrations.AddField(
            model_name='generatedimage',
            name='source_type',
            field=models.CharField(blank=True, db_default='', default='', max_length=64, verbose_name='source (IPTC)'),
        ),
        migrations.AddField(
            model_name='generatedimage',
            name='content_credentials',
            field=models.BooleanField(blank=True, null=True, verbose_name='Content Credentials (C2PA)'),
        ),
    ]
