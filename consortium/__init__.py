"""Many machines: who provisions a consortium, who joins it, and Flower's services on each machine.

===============  ====================================================================================
``layout``       where every file of the operator's folder and of a silo's folder is
``about``        which consortium a folder belongs to, where its server is
``certificates`` what may be certified, and what is good
``authority``    the certificate authority: what it signs
``documents``    what travels between operator and silo: invitation, request, admission, renewal, bulletin
``index``        the append-only index of what was issued and revoked
``founding``     a new consortium
``operator``     the operator's folder: invite, admit, renew, revoke
``requests``     what a request must be before anything is signed for it
``settling``     what follows from the index, made where it is missing
``vault``        the authority's key in a file
``silo``         the silo's folder: keys, request, renewal
``joining``      what a silo installs of what the operator sends
``pinning``      the roster that a silo takes part under
``standing``     who is in, what each has, what expires when
===============  ====================================================================================
"""
