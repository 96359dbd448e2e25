-- For the resolver: names that end with some letters, which is where a name that is misspelt at its beginning is still
-- right (src/resolve/halves.rs). entities_name_type_key has those that begin with some. Costs an entry for each new entity
-- and nothing for a mention; beside the other read indexes of entities (50 to 100 us a row) that was not to be measured.
create index entities_name_backwards_idx on entities (reverse(name));
