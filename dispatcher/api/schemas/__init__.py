"""What the API takes and answers, where that is not a record of the ledger as `bus.records` has it."""
