"""Who decides: the scheduling core, the ledger in Redis, leadership, and the FastStream app that reads the bus."""
