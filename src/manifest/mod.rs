//! YAML text to validated specs.
