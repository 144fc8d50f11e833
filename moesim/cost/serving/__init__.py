"""What the iterations of an inference engine take on one replica."""
