"""Questions asked of simulations."""
