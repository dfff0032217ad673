"""The process beside the server that heals."""
