"""The command line: one file a command; heavy libraries load inside the callbacks."""
