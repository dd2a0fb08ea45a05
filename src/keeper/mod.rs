//! The parent of all components.
