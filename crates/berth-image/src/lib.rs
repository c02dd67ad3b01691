//! Pull, load, tags, removal: what an image is to a user.
#![forbid(unsafe_code)]
