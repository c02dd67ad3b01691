-- Times are milliseconds since the epoch; digests are written "algorithm:hex".

CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('document', 'layer')),
    size INTEGER NOT NULL,
    used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_by_use ON blobs (kind, used);

CREATE TABLE layers (
    chain TEXT PRIMARY KEY,
    parent TEXT REFERENCES layers (chain),
    diff TEXT NOT NULL,
    size INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX layers_by_parent ON layers (parent);

CREATE TABLE images (
    id TEXT PRIMARY KEY REFERENCES blobs (digest),
    chain TEXT REFERENCES layers (chain),
    size INTEGER NOT NULL,
    created INTEGER,
    stored INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX images_by_chain ON images (chain);

-- An image may have come by several manifests, a manifest by several indexes.
CREATE TABLE image_sources (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    manifest TEXT NOT NULL REFERENCES blobs (digest),
    index_digest TEXT REFERENCES blobs (digest),
    UNIQUE (image, manifest, index_digest)
) STRICT;
CREATE INDEX image_sources_by_manifest ON image_sources (manifest);
CREATE INDEX image_sources_by_index ON image_sources (index_digest);

CREATE TABLE tags (
    name TEXT PRIMARY KEY,
    target TEXT NOT NULL,
    image TEXT NOT NULL REFERENCES images (id)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_image ON tags (image);

CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    image TEXT NOT NULL,
    created INTEGER NOT NULL,
    state TEXT NOT NULL,
    config TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX containers_by_image ON containers (image);

CREATE TABLE snapshots (
    id TEXT PRIMARY KEY,
    chain TEXT REFERENCES layers (chain)
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshots_by_chain ON snapshots (chain);

CREATE TABLE settings (
    collection TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (collection, key)
) STRICT, WITHOUT ROWID;
