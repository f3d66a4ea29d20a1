"""Many machines: who provisions a consortium, who joins it, and Flower's services on each machine.

=================  ====================================================================================
``layout``         where every file of the operator's folder and of a silo's folder is
``about``          which consortium a folder belongs to, where its server is
``certificates``   what may be certified, and what is good
``authority``      the certificate authority: what it signs
``documents``      what travels between operator and silo: invitation, request, admission, renewal, bulletin
``index``          the append-only index of what was issued and revoked
``founding``       a new consortium
``operator``       the operator's folder: invite, admit, renew, revoke
``requests``       what a request must be before anything is signed for it
``settling``       what follows from the index, made where it is missing
``vault``          the authority's key in a file
``silo``           the silo's folder: keys, request, renewal
``joining``        what a silo installs of what the operator sends
``pinning``        the roster that a silo takes part under
``standing``       who is in, what each has, what expires when
``superlink``      the services of the server: SuperLink, SuperExec, proxy
``registry``       which nodes the SuperLink lets in
``submit``         a run: submitted, followed, listed
``silo_services``  the services of a silo: proxy, SuperNode, gate
``supernode``      Flower's SuperNode, which looks for messages more often while there are any
``services``       what both have in common; ``loopback`` their certificate on one machine
``proxy``          HAProxy's configuration on both sides
``supervise``      starts, watches and stops services; ``leash`` ties them to it, ``logs`` keeps their words
=================  ====================================================================================
"""
