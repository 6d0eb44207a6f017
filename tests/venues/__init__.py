"""Venues of our own to test adapters against: they speak the real protocol, match exactly, and misbehave on request."""
