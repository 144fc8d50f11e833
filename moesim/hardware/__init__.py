"""What the machines offer: devices, topology, and rank groups on it."""
