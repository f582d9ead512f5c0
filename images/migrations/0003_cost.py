"""What each image cost. Rows that were there before stay unknown; releases before this one go on writing rows."""

from django.db import migrations, models

import images.models


class Migration(migrations.Migration):

    dependencies = [
        # A host may give the app another label.
        (images.models.GeneratedImage._meta.app_label, '0002_compare_identities_to_the_letter'),
    ]

    operations = [
        migrations.AddField(
            model_name='generatedimage',
            name='cost',
            field=models.DecimalField(blank=True, decimal_places=10, help_text='Of all attempts together. Empty if it is unknown.', max_digits=18, null=True, verbose_name='cost in US dollars'),
        ),
        migrations.AddField(
            model_name='generatedimage',
            name='cost_basis',
            field=models.CharField(blank=True, choices=[('reported', 'reported by the server'), ('estimated', 'estimated from tokens and prices'), ('at_least', 'at least; a part is unknown')], db_default='', default='', max_length=16, verbose_name='how the cost was found'),
        ),
        migrations.AddField(
            model_name='generatedimage',
            name='prices_dated',
            field=models.DateField(blank=True, null=True, verbose_name='day of the prices'),
        ),
    ]
