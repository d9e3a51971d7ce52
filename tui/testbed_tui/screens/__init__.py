"""One class a file, one file a screen."""
