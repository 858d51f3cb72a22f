"""Measurements of srpha; ``python -m benchmarks`` runs them and writes bench-results/."""
