"""An app of somebody else's project, copied into the projects that the tests make."""
