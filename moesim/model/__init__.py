"""What the network asks for: parameters, FLOP, bytes, tokens; no seconds here."""
