"""Hypernetworks in and out: our formats, the release's files, packaged and public names."""
