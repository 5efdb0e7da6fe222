"""pigeonholed: drop pictures into a folder and a tireless service sorts them."""

__version__ = "0.1.0"
