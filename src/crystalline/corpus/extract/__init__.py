"""From the bytes of any format to text: see extraction.py."""
