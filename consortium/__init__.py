"""Many machines: who provisions a consortium, who joins it, and Flower's services on each machine.

===============  ====================================================================================
``layout``       where every file of the operator's folder and of a silo's folder is
``about``        which consortium a folder belongs to, where its server is
``authority``    the certificate authority: certificates, the list of revoked ones, what is allowed
``documents``    what travels between operator and silo: invitation, request, admission, renewal, bulletin
``register``     the append-only index of what was issued and revoked, and the lock on it
``operator``     the operator's folder: make it, invite, admit, revoke, renew
``silo``         the silo's folder: request, join, renew
``standing``     who is in, what each has, what expires when
===============  ====================================================================================
"""
