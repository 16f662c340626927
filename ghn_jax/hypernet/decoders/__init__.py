"""Decoders: from node states to tensors. Every file here is imported, and registers its kind."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
