"""Suspicion: how far each update lies from the others of its round, and what is made of that, with a reason."""
