"""Ids, keys and file names are compared to the letter on MariaDB and MySQL. On other databases nothing is done."""

from typing import Any

from django.db import migrations

import images.fields
import images.models


class AlterFieldOnMySQL(migrations.AlterField):
    """Other databases compare to the letter by themselves."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "mysql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class Migration(migrations.Migration):

    dependencies = [
        # A host may give the app another label.
        (images.models.GeneratedImage._meta.app_label, '0001_initial'),
    ]

    operations = [
        AlterFieldOnMySQL(
            model_name='generatedimage',
            name='content_item_id',
            field=images.fields.IdentityField(max_length=255, verbose_name='content item'),
        ),
        AlterFieldOnMySQL(
            model_name='generatedimage',
            name='file_stem',
            field=images.fields.IdentityField(editable=False, help_text='Known before the provider is asked, so that a file can always be matched with its row.', max_length=400, unique=True, verbose_name='file name without extension'),
        ),
        AlterFieldOnMySQL(
            model_name='generatedimage',
            name='file',
            field=images.fields.IdentityFileField(blank=True, db_index=True, max_length=420, storage=images.models.image_storage, upload_to=images.models.upload_to, verbose_name='file'),
        ),
        AlterFieldOnMySQL(
            model_name='generatedimage',
            name='idempotency_scope',
            field=images.fields.IdentityField(blank=True, editable=False, max_length=80, verbose_name='whose idempotency key'),
        ),
        AlterFieldOnMySQL(
            model_name='generatedimage',
            name='idempotency_key',
            field=images.fields.IdentityField(blank=True, editable=False, max_length=255, null=True, verbose_name='idempotency key'),
        ),
    ]
