"""Where claims, intents and history outlive the daemon.  A cache: losing it costs history only."""
