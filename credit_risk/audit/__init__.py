"""The evidence: records, the log that keeps them, and the databases it keeps them in."""
