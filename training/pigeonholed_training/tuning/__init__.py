"""The search for better settings of a recipe: what is tried, how it is remembered, what it leaves."""
