-- Room in every page for new versions of its rows.
--
-- A connection gets a new version with every epoch that mentions it. Where no index is on the columns that change, and
-- the version fits into the page of the one before, no index gets an entry (heap-only tuples). Inserted rows fill their
-- pages, so versions went to other pages, with an entry in every index. Pages that are full already stay so until rows of
-- theirs are updated or deleted.
--
-- With read indexes on the figures of connections every version has entries in all indexes, room or not.

alter table connections set (fillfactor = 85);
alter table entities set (fillfactor = 90);
