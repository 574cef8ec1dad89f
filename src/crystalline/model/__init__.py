"""The network, its objective, and drawing text from it."""
