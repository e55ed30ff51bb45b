"""What is decided: pure functions over immutable facts. No I/O, no clock, no logging, no await."""
