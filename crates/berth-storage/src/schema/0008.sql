-- Directories that steps of builds find again (RUN --mount=type=cache): what tells one apart from others, its name beneath
-- build-cache, and what it is for.
CREATE TABLE build_caches (
    key TEXT PRIMARY KEY,
    directory TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    created INTEGER NOT NULL,
    used INTEGER NOT NULL,
    uses INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
