-- For the resolver: names that end with some letters, which is where a name that is misspelt at its beginning is still
-- right. entities_name_type_key has those that begin with some. Costs an entry for each new entity and nothing for a
-- mention; what it costs a load is in src/resolve/halves.rs.
create index entities_name_backwards_idx on entities (reverse(name));
