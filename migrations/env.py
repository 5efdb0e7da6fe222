"""Alembic's entry: runs the migrations on the connection that pigeonholed hands over."""

from __future__ import annotations

from alembic import context

from pigeonholed import tables

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run migrations with 'pigeonholed db upgrade': it knows the database")

context.configure(connection=connection, target_metadata=tables.metadata, render_as_batch=True)
context.run_migrations()
