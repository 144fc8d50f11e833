"""How good a network gets, and after how much training: laws, equal quality, distilled students."""
