"""REPORT: events folded into files, pictures and tables."""
