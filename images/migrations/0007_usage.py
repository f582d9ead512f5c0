"""What deleted images cost, and indexes that hold what the usage page and the lists count."""

import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import images.fields
import images.models

COUNTED = ['status', 'error_code', 'cost', 'cost_basis', 'deadline_at', 'duration_ms']


def add(name: str, *fields: str) -> migrations.AddIndex:
    return migrations.AddIndex(model_name='generatedimage', index=models.Index(fields=fields, name=name))


def remove(name: str) -> migrations.RemoveIndex:
    return migrations.RemoveIndex(model_name='generatedimage', name=name)


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        # A host may give the app another label.
        (images.models.GeneratedImage._meta.app_label, '0006_republish_at'),
    ]

    operations = [
        migrations.CreateModel(
            name='DeletedImage',
            fields=[
                ('id', models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ('content_item_id', images.fields.IdentityField(max_length=255)),
                ('variant', models.CharField(max_length=16)),
                ('status', models.CharField(max_length=16)),
                ('provider', models.CharField(blank=True, max_length=64)),
                ('model', models.CharField(blank=True, max_length=128)),
                ('cost', models.DecimalField(decimal_places=10, max_digits=18, null=True)),
                ('cost_basis', models.CharField(blank=True, db_default='', default='', max_length=16)),
                ('duration_ms', models.PositiveIntegerField(null=True)),
                ('error_code', models.CharField(blank=True, max_length=64)),
                ('created_at', models.DateTimeField()),
                ('deleted_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('at_first_try', models.BooleanField(db_default=True, default=True)),
                ('owner', models.ForeignKey(db_constraint=False, null=True, on_delete=images.models.set_null_where_images_live, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'default_permissions': (),
                'indexes': [
                    models.Index(fields=['created_at', 'id', 'status', 'error_code', 'cost', 'cost_basis', 'duration_ms'], name='images_deleted_by_time'),
                    models.Index(fields=['deleted_at', 'at_first_try'], name='images_deletions'),
                ],
            },
        ),
        # The new indexes first: meanwhile queries have the old ones.
        add('images_by_time', '-created_at', '-id', *COUNTED),
        add('images_by_item', 'content_item_id', '-created_at', '-id', *COUNTED),
        add('images_by_owner', 'owner', '-created_at', '-id', 'variant', *COUNTED),
        add('images_by_model', 'provider', 'model', '-created_at', *COUNTED),
        add('images_by_status', 'status', '-created_at', '-id', 'deadline_at'),
        remove('images_newest'),
        remove('images_content_item'),
        remove('images_owner_newest'),
        remove('images_ledger'),
        remove('images_status_newest'),
    ]
