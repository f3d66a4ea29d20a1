"""The charter: what the members of a consortium have agreed on, signed by them, checked by every silo.

Bytes in, bytes out; no clocks: who calls says what time it is.

=============  ======================================================================================
``document``   what a charter says, and its one spelling
``parts``      what it is made of: members, code, the rules for the end
``drafts``     the YAML that people write, read strictly
``signed``     a charter with its members' signatures, and the rule by which one version may follow another
``chain``      all versions together: which is in force
``limits``     the strictest of several limits, and what there is against a run
``words``      a charter, and what an amendment changes, in plain words
=============  ======================================================================================
"""
