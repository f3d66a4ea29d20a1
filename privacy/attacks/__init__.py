"""The mathematics of attacks on what training lets out: pure, and with nothing but what an observer is given."""
