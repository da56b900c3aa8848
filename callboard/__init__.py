"""The command line: the only place that puts bus, dispatcher, agents and metrics together into processes."""
