"""What `faults` does to supervisors, and what somebody outside then sees. One file for each kind of
trouble; a scenario is a function from a subject to the text that stands in the table."""
