"""Istio: installation, rules, bookinfo."""
