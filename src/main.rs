//! The program: keeper, engine and command line in one binary.

fn main() {}
