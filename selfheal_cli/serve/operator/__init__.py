"""What an operator meets: status, the page, and the orders that it gives."""
