"""What the router does to tokens: loads, capacity, drops."""
