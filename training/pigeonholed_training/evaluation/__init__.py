"""How good a model is, and how far its confidences can be trusted."""
