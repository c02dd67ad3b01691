-- Networks that users made. Endpoints and their addresses are part of their containers' rows.

CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    config TEXT NOT NULL
) STRICT, WITHOUT ROWID;
