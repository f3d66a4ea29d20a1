"""The server: what is done with what silos send."""
