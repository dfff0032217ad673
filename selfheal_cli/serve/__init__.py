"""A registered model behind HTTP: it scores here, and heals in a process of its own."""
