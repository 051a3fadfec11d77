"""Ensemble evaluation: samples against molecular dynamics, AlphaFlow's protocol.

Needs neither torch nor OpenMM nor Protenix; useful alone.
"""
