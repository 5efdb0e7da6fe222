"""What people look at: the report of a model, in one page that needs nothing else."""
