"""Models on their way out: signed envelopes, versions, revocation, watermarks."""
