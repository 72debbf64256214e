"""Watching the server: metrics and logs. It imports the core; the core never imports it."""
