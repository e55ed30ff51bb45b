"""Facts are read, decisions asked of :mod:`supervisor.core`, actions applied.  Knows no adapter by name."""
