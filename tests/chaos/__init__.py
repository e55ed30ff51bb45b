"""Random faults on the real server, with callers who listen: ``python -m tests.chaos``."""
