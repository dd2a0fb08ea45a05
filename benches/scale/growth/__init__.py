"""What benches/scale/run is made of: subjects in sizes, their lives, and the table of both."""
