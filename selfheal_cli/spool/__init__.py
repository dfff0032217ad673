"""What a server scored, what it was told of it later, and what it is to serve: kept on disk."""
