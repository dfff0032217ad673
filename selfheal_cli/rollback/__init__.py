"""ROLLBACK: find the version to restore, check it, move the alias."""
