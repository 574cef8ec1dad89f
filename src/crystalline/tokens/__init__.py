"""From text to tokens, and from tokens to their prime codes."""
