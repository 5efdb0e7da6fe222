"""A user's own trusted classifier becomes a bundle: `.keras`, `.h5` or SavedModel."""
