"""The silo: what it answers, its tasks, its data, its training, its app."""
