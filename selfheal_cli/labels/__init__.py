"""Labels: when they come, whether they can be trusted, what is estimated until they come."""
