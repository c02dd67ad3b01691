-- Volumes, and the containers that have them. Labels and options are JSON, or null where none were given.

CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    driver TEXT NOT NULL,
    created INTEGER NOT NULL,
    labels TEXT,
    options TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE volume_users (
    volume TEXT NOT NULL REFERENCES volumes (name) ON UPDATE CASCADE,
    container TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    PRIMARY KEY (volume, container)
) STRICT, WITHOUT ROWID;
CREATE INDEX volume_users_by_container ON volume_users (container);
