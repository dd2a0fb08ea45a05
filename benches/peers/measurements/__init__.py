"""What is measured. Each takes one supervisor through one scenario and writes down what it took.

What is measured is what somebody outside sees: commands, and the time at which a process that was
started has run, as that process itself wrote it down. Nothing inside a supervisor is asked.
"""

# No supervisor but s6 holds a run of this length against its replacement (runit waits until 1 s has
# passed since the last start).
LIVED_SECONDS = 1.5
# Nothing more is restarted or written once nothing was for so long.
QUIET_SECONDS = 3
# The length of a line of a log, its newline included.
LINE = 100
