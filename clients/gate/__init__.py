"""The gate: what is installed at the silo and sees the server's code before it runs.

Flower's server ships the code of the ClientApp. A check inside that code binds only an honest server, so this
package stands before it: a starter of ours, in the place of Flower's ``flwr-clientapp``, holds the bundle against the
operator's list while it is still bytes in memory. See ``docs/gate.md``.

==============  ==========================================================================================
``bundle``      a bundle as untrusted bytes: read with limits, named by two hashes, written to a folder
``approvals``   the operator's list of approved hashes, beside ``silo.yaml``
``launch``      ``quire gate``: Flower's SuperExec, which can start nothing but our starter
``starter``     one process for each message: pull, check, hand on, answer
``working``     that process as the starter has it: forked or started, asked, ended
``warm``        a process that has imported Flower and torch ahead of messages, and is forked for each
``knock``       what Flower starts for a message: hands it to the warm process, or starts it cold
``worker``      the process in which approved code runs; imports nothing of ours
``scrub``       the environment variables that the worker sees
``mark``        how code can tell that a gate let it in
==============  ==========================================================================================
"""
