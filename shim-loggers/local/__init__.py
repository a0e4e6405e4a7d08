"""The copy of the output on this machine, and its JSON."""
