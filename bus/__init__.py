"""The vocabulary of the bus: names, messages, connections, and the `Client` that publishes tasks and awaits results."""
