"""The Django project around the app `images`: settings, server, demo, health."""
