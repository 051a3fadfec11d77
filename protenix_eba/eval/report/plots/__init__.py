"""Figures of a report: small multiples by target, as SVG and PNG."""
