"""People and programs are told of what happened: webhooks and a command, each at least once."""
