"""Models on their way out: signed envelopes, versions, revocation, watermarks.

==============  ======================================================================================
``recipients``  key pairs that envelopes are encrypted to
``header``      what an envelope says of itself, in clear and signed
``envelope``    an envelope's bytes: sealed, taken apart, opened
``book``        the registry's book: released, revoked, rolled back; each entry signed and chained
``registry``    the folder of book and envelopes, written by one process at a time
``memory``      what a recipient has seen of registries, so that nobody can show an older one
``making``      from a run to a release
``opening``     from an envelope to a model, with every reason to refuse
``checking``    a whole registry, checked offline
``watermark``   bits in weights, and how sure one can be that they are there
``disk``        files that are there whole or not at all
==============  ======================================================================================
"""
