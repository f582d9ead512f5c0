"""Requests that wait for a provider, callers that wait for a request, and the limits of providers in the database."""

from django.db import migrations, models

import images.fields
import images.models


class Migration(migrations.Migration):

    dependencies = [
        # A host may give the app another label.
        (images.models.GeneratedImage._meta.app_label, '0007_usage'),
    ]

    operations = [
        migrations.AddField(
            model_name='generatedimage',
            name='caller_waits',
            field=models.BooleanField(db_default=False, default=False, editable=False, verbose_name='caller waits'),
        ),
        migrations.AddField(
            model_name='generatedimage',
            name='delivery',
            field=models.UUIDField(blank=True, editable=False, null=True, verbose_name='delivered as'),
        ),
        migrations.AddField(
            model_name='generatedimage',
            name='retry_at',
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name='next attempt'),
        ),
        migrations.CreateModel(
            name='RateLimitSlot',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('provider', images.fields.IdentityField(max_length=64)),
                ('number', models.PositiveIntegerField()),
                ('used_at', models.BigIntegerField(default=0)),
            ],
            options={
                'default_permissions': (),
                'indexes': [models.Index(fields=['provider', 'used_at'], name='images_rate_limit_oldest')],
                'constraints': [models.UniqueConstraint(fields=('provider', 'number'), name='images_rate_limit_slot')],
            },
        ),
    ]
