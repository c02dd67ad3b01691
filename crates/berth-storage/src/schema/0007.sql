-- Layers and documents whose files may not have reached the disk yet, in the order in which they came, and the boot in
-- which they were written. Those of an earlier boot are checked at the start; 'damaged' is what did not pass.
CREATE TABLE unsynced (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('document', 'layer')),
    digest TEXT NOT NULL,
    boot TEXT NOT NULL,
    UNIQUE (kind, digest)
) STRICT;
