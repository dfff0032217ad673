"""Audit: whether logs, journal, versions, files and aliases still agree with one another."""
