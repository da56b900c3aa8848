"""The REST API: stateless, any number of processes beside the dispatchers.

It writes by publishing to the bus, as every client does, and reads the ledger; what only the leader knows it asks for.
It decides nothing and changes no state. `dispatcher.api.service` runs it, `dispatcher.api.app` says what it consists
of.

FastAPI takes a second to import: `settings` and `tokens` do without, and commands that do not serve import no more.
"""
