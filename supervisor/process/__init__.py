"""Processes of this host: started, found, watched and ended; never two at once for an ID."""
