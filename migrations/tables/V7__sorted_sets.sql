-- A function with a subquery is executed for every row that it checks, which takes about 6 us. An expression without one
-- becomes part of the check. It compares the first four ids, so only larger sets need a function. For arrays that begin
-- at 1, as all of graphsink's do, the result is the same.

create function graphsink_is_sorted_large_set(ids uuid[]) returns boolean
    language sql immutable parallel safe
    return coalesce((
        select bool_and(ids[i] < ids[i + 1])
        from generate_series(1, cardinality(ids) - 1) as i), true);

-- Each write of a connection needs the right to execute both, so the second one has the grants of the first.
do $$
declare
    grantee text;
begin
    for grantee in
        select case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
        from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        where p.oid = 'graphsink_is_sorted_set(uuid[])'::regprocedure and a.privilege_type = 'EXECUTE'
    loop
        execute format('grant execute on function graphsink_is_sorted_large_set(uuid[]) to %s', grantee);
    end loop;
end $$;

-- An element that does not exist is null, so it breaks no order.
create or replace function graphsink_is_sorted_set(ids uuid[]) returns boolean
    language sql immutable parallel safe
    return coalesce(ids[1] < ids[2], true) and coalesce(ids[2] < ids[3], true) and coalesce(ids[3] < ids[4], true)
        and (cardinality(ids) <= 4 or graphsink_is_sorted_large_set(ids));
