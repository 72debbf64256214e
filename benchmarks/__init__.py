"""This server side by side with others: same model, same rows, same machine, one run."""
