-- Steps of builds that need not be done again: the digest of all that a step depends on, and the image that it made.
CREATE TABLE build_steps (
    key TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX build_steps_by_image ON build_steps (image);
