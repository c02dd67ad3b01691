-- What an image was made from, the labels that lists show (null: only the configuration tells), and when it was last used
-- and last got a name (null: not since this is recorded).
ALTER TABLE images ADD COLUMN parent TEXT;
ALTER TABLE images ADD COLUMN labels TEXT;
ALTER TABLE images ADD COLUMN used INTEGER;
ALTER TABLE images ADD COLUMN named INTEGER;
CREATE INDEX images_by_parent ON images (parent);
