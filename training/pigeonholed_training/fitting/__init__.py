"""Fitting a network to pictures: feeding, the loop, its schedule and its checkpoints."""
