"""Measurements: edits of scenes with a known truth, and the paper's other figures. ``python -m
ddpm_core bench`` runs them all."""
