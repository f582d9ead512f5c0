"""System checks: what is missing or wrong in the configuration, with a hint that says what to type."""
