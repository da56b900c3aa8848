"""One module per command; `callboard.cli` imports it when the command is called."""
