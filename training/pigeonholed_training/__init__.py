"""pigeonholed-train: makes, judges and publishes the models that pigeonholed serves."""
