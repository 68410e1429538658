"""Measurements: edits of scenes with a known truth, and the paper's other experiments. ``python -m
ddpm_core bench`` runs them all."""
