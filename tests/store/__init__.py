"""Tests of L{dynbalance.store}."""
