-- For the resolver: restaurants at a house number, "1737 Cherry St" between '1737 ' and '1737!'.
--
-- entities_address_trgm_idx could find them too, but it is partial by type, so a query has to name the type; on a table
-- without statistics the planner then takes the whole index on the type for the cheaper way (store/statement.rs has
-- more of the kind). This one follows from the comparison itself, is read in microseconds, and costs nothing for
-- entities without an address.
create index entities_house_number_idx on entities (address text_pattern_ops) where address is not null;
