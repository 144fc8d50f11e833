"""Physics formulas of operators, each with its fit: module = quantity, function = named model."""
