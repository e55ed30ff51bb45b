"""What others connect to: HTTP, the control socket, the guard socket."""
