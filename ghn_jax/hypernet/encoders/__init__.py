"""Encoders: from a padded batch of graphs to node states."""
