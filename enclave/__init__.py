"""A silo inside an SGX enclave, by Gramine: settings, files, manifests, signatures, quotes. See ``docs/enclave.md``.

==============  ==========================================================================================
``settings``    ``enclave.yaml``: what runs inside, with how much memory and how many threads
``tracing``     which files a silo really opens, found by running it; ``traced`` is what runs there
``files``       the list of those files, and their SHA-256
``bytecode``    modules compiled so that a clock that stands still does not make them stale
``manifest``    the one template, rendered as ``direct-dev`` or ``sgx-prod``
``check``       a rendering held against a schema of ours, with Gramine absent
``doctor``      what this machine lacks
``programs``    Gramine's own programs: sign, run, check
``sigstruct``   a signature of an enclave, read from its bytes
``inside``      what runs inside: makes the key, answers a challenge, rehearses a round
``quotes``      a quote, read from its bytes, and the report data that it must carry
``policy``      which enclaves are let in
``chain``       the lowest layer of verification, by ``dcap-qvl``
``verify``      all of it: does this answer prove what it should?
==============  ==========================================================================================
"""
