"""Time passes: processes and streams on simpy."""
