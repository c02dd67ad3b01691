-- Images that builds ended with: they are more than the cache of their last step, with a name or without.
CREATE TABLE build_results (
    image TEXT PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
-- Of earlier builds nobody knows: whatever no other image was made from may be one.
INSERT INTO build_results
    SELECT DISTINCT image FROM build_steps
    WHERE image NOT IN (SELECT parent FROM images WHERE parent IS NOT NULL);
