"""Tests of dynbalance, laid out as the package is."""
