"""The record of a run: written while it runs, read when it is replayed."""
