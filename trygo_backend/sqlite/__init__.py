"""Django's SQLite backend with connections that are kept for the next request (`base`)."""
