"""Clusters, and the capacity providers and strategies they have."""
