"""The experts of recipe ``ensemble``, and what mixes them."""
