-- Room in every page for new versions of its rows.
--
-- A connection gets a new version with every epoch that mentions it. Where no index is on the columns that change, and
-- the version fits into the page of the one before, no index gets an entry (heap-only tuples): the version is a sixth of the
-- WAL, and a quarter of the pages. Pages are full as long as rows are inserted, so there was never room. Pages that are
-- full already stay so until their rows are updated or deleted.
--
-- With read indexes on the figures of connections every version has entries in all indexes, room or not.

alter table connections set (fillfactor = 85);
alter table entities set (fillfactor = 90);
