"""Strategies to learn from and to test the engine with: none of them is a recommendation."""
