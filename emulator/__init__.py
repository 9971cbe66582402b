"""A local Azure: what azure-ai-ml, azure-identity and the storage and registry clients talk to.

    python -m emulator --folder .cache/rehearsal      until it is ended

The unpatched clients reach it as they reach Azure: by Azure's host names over verified TLS, through
a CONNECT proxy that answers only for those names (proxy.py). Jobs and deployments really run
(nodes/), bytes lie in Azurite (storage.py). What it does not know, it refuses with 501 and
remembers (journal.py). It imports no other room of the house, and nobody but its tests and
scripts/rehearse.py knows of it.
"""
