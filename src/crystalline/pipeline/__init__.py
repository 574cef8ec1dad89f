"""Runs the stages in order, skips what is done, tells what is planned."""
