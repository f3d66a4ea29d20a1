"""The silo's own say: the policy in its ``silo.yaml``, and the decision on what a server asks of it."""
