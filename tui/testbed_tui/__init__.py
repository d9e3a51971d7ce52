"""The operator's screen: a Textual app that reads the event stream of runs."""
