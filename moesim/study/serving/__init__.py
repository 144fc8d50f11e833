"""Questions asked of simulated inference."""
