-- Foreign keys that a transaction may check after it copied rows, not while: `set constraints .. deferred`. Until that is
-- requested they are checked as before, with each statement.

-- In the order in which engines lock them.
lock table connections, mentions in access exclusive mode;

do $$
declare
    key record;
begin
    for key in
        select c.oid::regclass as of_table, k.conname as name
        from pg_constraint k join pg_class c on c.oid = k.conrelid
        where k.contype = 'f' and not k.condeferrable and k.conparentid = 0
          and c.oid in ('connections'::regclass, 'mentions'::regclass)
          and k.conname in ('connections_restaurant_id_fkey', 'connections_dish_or_category_id_fkey',
                            'mentions_connection_id_fkey')
    loop
        execute format('alter table %s alter constraint %I deferrable initially immediate', key.of_table, key.name);
    end loop;
end $$;
