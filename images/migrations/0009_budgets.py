"""What counts against a budget: on each row, and added up by day and month."""

from django.db import migrations, models

import images.fields
import images.models


class Migration(migrations.Migration):

    dependencies = [
        # A host may give the app another label.
        (images.models.GeneratedImage._meta.app_label, '0008_waiting_for_a_provider'),
    ]

    operations = [
        migrations.AddField(
            model_name='generatedimage',
            name='budget_reserved',
            field=models.BigIntegerField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name='generatedimage',
            name='budget_extra',
            field=models.BigIntegerField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name='deletedimage',
            name='budget_extra',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddIndex(
            model_name='generatedimage',
            index=models.Index(
                condition=models.Q(('budget_reserved__isnull', False), ('budget_extra__isnull', False), _connector='OR'),
                fields=['created_at'],
                name='images_budgeted',
            ),
        ),
        migrations.CreateModel(
            name='BudgetPeriod',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('scope', images.fields.IdentityField(blank=True, max_length=80)),
                ('kind', models.CharField(max_length=8)),
                ('starts_on', models.DateField()),
                ('spent', models.BigIntegerField(default=0)),
                ('reserved', models.BigIntegerField(default=0)),
                ('counted_at', models.DateTimeField(null=True)),
                ('warned_at', models.DateTimeField(null=True)),
            ],
            options={
                'default_permissions': (),
                'constraints': [models.UniqueConstraint(fields=('scope', 'kind', 'starts_on'), name='images_budget_period')],
            },
        ),
    ]
