"""What learns after deployment: a file an adapter, found by name in `kinds`."""
