"""Work on the machines of a Ray cluster, with the same answers as on one."""
