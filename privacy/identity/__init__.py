"""Who is who: identity keys and their signatures, and the roster that pins them. Bytes in, bytes out.

=============  ======================================================================================
``hashing``    the one tagged hash
``canonical``  JSON with exactly one way to write a value
``keys``       public and private identities, signatures
``roster``     who belongs to a consortium, under which keys, who may change that
``signed``     a roster with its admins' signatures; which roster may follow which
``ephemeral``  a roster for one simulation, from a seed
=============  ======================================================================================
"""
