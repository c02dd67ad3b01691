//! What the cloned child does until the program runs.
