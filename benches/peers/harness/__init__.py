"""What both programs of this folder are made of. Nothing in here knows a supervisor by name."""
