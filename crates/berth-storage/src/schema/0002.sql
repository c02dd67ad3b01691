-- The last things that happened, as JSON, in their order.

CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    message TEXT NOT NULL
) STRICT;
