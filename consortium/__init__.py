"""Many machines: who provisions a consortium, who joins it, and Flower's services on each machine.

===============  ====================================================================================
``layout``       where every file of the operator's folder and of a silo's folder is
``about``        which consortium a folder belongs to, where its server is
``certificates`` what may be certified, and what is good
``authority``    the certificate authority: what it signs
``documents``    what travels between operator and silo: invitation, request, admission, renewal, bulletin
``index``        the append-only index of what was issued and revoked
``operator``     the operator's folder: make it, invite, admit, revoke, renew
``silo``         the silo's folder: request, join, renew
``standing``     who is in, what each has, what expires when
===============  ====================================================================================
"""
