"""The command line: one small file per verb; heavy imports wait until a verb runs."""
