"""The promise, closed on real hardware: small models timed, and compared with their prediction."""
