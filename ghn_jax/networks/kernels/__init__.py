"""Formulations of operations that depend on the backend, each with its plain form beside it."""
