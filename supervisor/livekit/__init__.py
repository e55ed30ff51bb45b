"""LiveKit's server API and webhooks, translated to and from :mod:`supervisor.core.model`."""
