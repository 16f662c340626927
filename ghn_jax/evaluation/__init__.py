"""Accuracy of predicted parameters on architectures that were never trained on."""
