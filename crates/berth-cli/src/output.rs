//! Printing. The standard macros panic when the reader has gone, as `head` does after its lines.

/// As `print!`, but an output that is closed is no failure.
macro_rules! out {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($part)*);
    }};
}

/// As `println!`, but an output that is closed is no failure.
macro_rules! outln {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($part)*);
    }};
}

/// As `eprintln!`, but an output that is closed is no failure.
macro_rules! errln {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}
