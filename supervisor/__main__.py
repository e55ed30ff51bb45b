"""``python -m supervisor``: the same as ``livekit-supervisor``."""

from supervisor.cli.app import main

if __name__ == "__main__":
    main()
