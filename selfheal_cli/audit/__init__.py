"""AUDIT: does what was recorded still hold? Logs, journal, versions, files and aliases."""
