"""An app of a host project, copied into the projects that the tests make."""
