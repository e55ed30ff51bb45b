"""Commands.  They talk to the running daemon through its control socket; only ``run`` is the daemon."""
